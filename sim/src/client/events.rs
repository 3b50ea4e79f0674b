//! The client's reading of an event stream. Deliberately not Shadowcat's decoder: the judge of a
//! stream must not share it. It reads what a well-behaved encoder writes: lines that end in LF.

/// One event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

/// Events from bytes.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    current: Event,
    touched: bool,
}

impl Events {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, also one that has an id only.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.drain(..=end);
            if line.is_empty() {
                let event = std::mem::take(&mut self.current);
                if std::mem::take(&mut self.touched) {
                    return Some(event);
                }
                continue;
            }
            let (name, value) = line
                .split_once(": ")
                .unwrap_or((line.trim_end_matches(':'), ""));
            match name {
                "id" => self.current.id = Some(value.to_owned()),
                "data" if self.current.data.is_empty() => value.clone_into(&mut self.current.data),
                "data" => {
                    self.current.data.push('\n');
                    self.current.data.push_str(value);
                }
                "retry" => self.current.retry = value.parse().ok(),
                _ => continue,
            }
            self.touched = true;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole() {
        let mut events = Events::default();
        events
            .push(b": comment\n\nid: 1-0\nretry: 1000\ndata:\n\nevent: message\nid: 1-1\ndata: {");
        let priming = events.next().unwrap();
        assert_eq!(
            (priming.id.as_deref(), priming.retry),
            (Some("1-0"), Some(1000))
        );
        assert_eq!(events.next(), None);
        events.push(b"}\n\n");
        assert_eq!(events.next().unwrap().data, "{}");
    }
}
