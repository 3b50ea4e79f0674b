//! Bytes as operations.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use shadowcat_sse::reconnect::{Input as Told, Refusal, Trouble};
use shadowcat_sse::{Event, Item};

pub(crate) struct Input<'a>(&'a [u8]);

/// One thing that the shell of an engine may do.
#[derive(Debug)]
pub(crate) enum Operation {
    Pass(Duration),
    Poll,
    /// Time passes until what the last poll said.
    UntilDue,
    Tell(Told),
    Received,
    Item(Item),
    Commit,
    Skip,
    Deadline(Option<Duration>),
    /// Reads what can only be read.
    Look,
    /// Drops the engine, whatever it is at, and begins another stream.
    Replace,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; 0 at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// The next operation, and which stream it is for.
    pub(crate) fn operation(&mut self) -> Option<(u8, Operation)> {
        if self.0.is_empty() {
            return None;
        }
        let byte = self.byte();
        let operation = match byte & 0x1f {
            0..=3 => Operation::Poll,
            4 | 5 => Operation::UntilDue,
            6 => Operation::Pass(self.time()),
            7..=9 => Operation::Tell(Told::Opened),
            10 => Operation::Tell(Told::Connected),
            11..=13 => Operation::Tell(Told::Failed(self.trouble())),
            14 => Operation::Tell(Told::Answered),
            15 => Operation::Tell(Told::NewSession),
            16 => Operation::Tell(Told::Hurry),
            17 => Operation::Tell(Told::Close),
            18 => Operation::Received,
            19..=23 => Operation::Item(self.item()),
            24..=26 => Operation::Commit,
            27 => Operation::Skip,
            28 => Operation::Deadline(None),
            29 => Operation::Deadline(Some(self.time())),
            30 => Operation::Look,
            _ => Operation::Replace,
        };
        Some((byte >> 5, operation))
    }

    /// 0 to about 18 hours.
    fn time(&mut self) -> Duration {
        let byte = self.byte();
        Duration::from_millis(u64::from(byte & 7) << (byte >> 3 & 31).min(23))
    }

    fn trouble(&mut self) -> Trouble {
        match self.byte() % 32 {
            0 | 1 => Trouble::NoConnection,
            2 => Trouble::Tls,
            3 => Trouble::NotProcessed,
            4 => Trouble::NoHead,
            5 => Trouble::Redirected {
                keeps_method: self.byte() & 1 == 0,
            },
            6 => Trouble::NoAnswer,
            7 => Trouble::WrongType,
            8 => Trouble::Truncated,
            9..=11 => Trouble::Ended,
            12..=14 => Trouble::Reset,
            15 => Trouble::Silent,
            16 => Trouble::TooLarge,
            17 => Trouble::NoMemory,
            30 => Trouble::NoSession {
                retry_after: Some(self.time()),
            },
            31 => Trouble::NoResponse,
            _ => Trouble::Refused(self.refusal()),
        }
    }

    fn refusal(&mut self) -> Refusal {
        const CODES: [u16; 16] = [
            400, 404, 405, 408, 409, 410, 425, 429, 500, 501, 502, 503, 401, 403, 204, 505,
        ];
        let byte = self.byte();
        let status = StatusCode::from_u16(CODES[usize::from(byte & 15)]).expect("a status");
        let mut headers = HeaderMap::new();
        if byte & 16 != 0 {
            headers.insert("retry-after", u64::from(byte >> 5).pow(5).into());
        }
        let refusal = Refusal::new(status, &headers, SystemTime::UNIX_EPOCH);
        match byte & 32 {
            0 => refusal,
            _ => refusal.in_session(byte & 64 != 0),
        }
    }

    fn item(&mut self) -> Item {
        let byte = self.byte();
        let id = self.id(byte & 31);
        match (byte >> 5, id) {
            (7, _) => Item::Comment,
            (6, _) => Item::Retry(self.time()),
            (5, Some(id)) => Item::IdOnly(id),
            (data, id) => Item::Event(Event {
                event_type: Bytes::new(),
                data: Bytes::copy_from_slice(&b"xyz"[..usize::from(data & 3)]),
                id,
            }),
        }
    }

    fn id(&mut self, byte: u8) -> Option<Bytes> {
        Some(match byte {
            0..=7 => return None,
            8 => Bytes::new(),
            9 => Bytes::from_static(b"a\x01b"),
            10 => vec![b'x'; 5000].into(),
            11 => vec![b'y'; 4096].into(),
            number => Bytes::from(number.to_string()),
        })
    }
}
