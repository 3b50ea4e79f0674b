//! A reader of event streams: plain, and only as tolerant as what it reads needs.

/// What a blank line ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) data: String,
    /// The id in this block, if it had one.
    pub(crate) id: Option<String>,
}

/// Bytes in, events out.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    /// The last `retry`, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl Events {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event; what is behind the last one waits for more bytes.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let text = std::str::from_utf8(&self.buffer).unwrap_or_default();
            let end = text.find("\n\n")?;
            let (mut data, mut id) = (Vec::new(), None);
            for line in text[..end].lines() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match name {
                    "data" => data.push(value),
                    "id" => id = Some(value.to_owned()),
                    "retry" => self.retry = value.parse().ok().or(self.retry),
                    _ => {}
                }
            }
            let event = Event {
                data: data.join("\n"),
                id,
            };
            self.buffer.drain(..end + 2);
            if event.id.is_some() || !event.data.is_empty() {
                return Some(event);
            }
        }
    }
}
