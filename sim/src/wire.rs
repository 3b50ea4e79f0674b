//! Connections in memory that can be slow, broken into small reads, and reset at any byte.
//!
//! Nothing here knows HTTP. A [`Wire`] is one end; what its peer writes arrives after the latency,
//! in reads of at most the chunk size. A [`Cutter`] breaks the connection from outside.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes that may be under way in one direction.
const CAPACITY: usize = 64 * 1024;

/// How a direction treats its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// From write to read.
    pub(crate) latency: Duration,
    /// The most bytes of one read.
    pub(crate) chunk: usize,
    /// Time between two reads.
    pub(crate) pace: Duration,
}

impl Manner {
    pub(crate) const PLAIN: Self = Self {
        latency: Duration::ZERO,
        chunk: usize::MAX,
        pace: Duration::ZERO,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    Reset,
}

struct Flow {
    queue: VecDeque<(Instant, Bytes)>,
    held: usize,
    end: End,
    manner: Manner,
    next_read: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn new(manner: Manner) -> Mutex<Self> {
        Mutex::new(Self {
            queue: VecDeque::new(),
            held: 0,
            end: End::Open,
            manner,
            next_read: None,
            reader: None,
            writer: None,
        })
    }

    fn end(&mut self, end: End) {
        if self.end == End::Open {
            self.end = end;
        }
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// One end of a connection.
pub(crate) struct Wire {
    /// What this end reads, and what it writes.
    flows: [Arc<Mutex<Flow>>; 2],
    pause: Option<Pin<Box<Sleep>>>,
}

/// Breaks a connection from outside.
#[derive(Clone)]
pub(crate) struct Cutter([Arc<Mutex<Flow>>; 2]);

/// A connection. `first` treats what the first end reads, `second` what the second end reads.
pub(crate) fn connection(first: Manner, second: Manner) -> (Wire, Wire) {
    let (to_first, to_second) = (Arc::new(Flow::new(first)), Arc::new(Flow::new(second)));
    let near = Wire {
        flows: [Arc::clone(&to_first), Arc::clone(&to_second)],
        pause: None,
    };
    let far = Wire {
        flows: [to_second, to_first],
        pause: None,
    };
    (near, far)
}

impl Wire {
    /// Bytes that can be written at once.
    pub(crate) fn room(&self) -> usize {
        CAPACITY - self.flows[1].lock().held
    }

    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(self.flows.clone())
    }
}

impl Cutter {
    /// This end is gone in an instant: what is on its way to it is lost. The other end finds the
    /// connection reset, after what has been written to it already.
    pub(crate) fn reset(&self) {
        for flow in &self.0 {
            flow.lock().end(End::Reset);
        }
        let mut reading = self.0[0].lock();
        reading.queue.clear();
        reading.held = 0;
    }

    /// Whether both ends may still write.
    pub(crate) fn is_open(&self) -> bool {
        self.0.iter().all(|flow| flow.lock().end == End::Open)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.flows[1].lock().end(End::Closed);
        let mut reading = self.flows[0].lock();
        reading.queue.clear();
        reading.end(End::Reset);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let wait_until = {
                let mut flow = self.flows[0].lock();
                let Some((visible, _)) = flow.queue.front() else {
                    return match flow.end {
                        End::Open => {
                            flow.reader = Some(cx.waker().clone());
                            Poll::Pending
                        }
                        End::Closed => Poll::Ready(Ok(())),
                        End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    };
                };
                let visible = flow.next_read.map_or(*visible, |next| next.max(*visible));
                if visible <= Instant::now() {
                    take(&mut flow, buf);
                    return Poll::Ready(Ok(()));
                }
                visible
            };
            self.pause = Some(Box::pin(tokio::time::sleep_until(wait_until)));
        }
    }
}

fn take(flow: &mut Flow, buf: &mut ReadBuf<'_>) {
    let most = buf.remaining().min(flow.manner.chunk);
    let Some((_, bytes)) = flow.queue.front_mut() else {
        return;
    };
    let taken = most.min(bytes.len());
    buf.put_slice(&bytes[..taken]);
    bytes.advance(taken);
    if bytes.is_empty() {
        flow.queue.pop_front();
    }
    flow.held -= taken;
    if !flow.manner.pace.is_zero() {
        flow.next_read = Some(Instant::now() + flow.manner.pace);
    }
    if let Some(writer) = flow.writer.take() {
        writer.wake();
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut flow = self.flows[1].lock();
        if flow.end != End::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = CAPACITY - flow.held;
        if room == 0 {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = room.min(buf.len());
        let visible = Instant::now() + flow.manner.latency;
        flow.queue
            .push_back((visible, Bytes::copy_from_slice(&buf[..taken])));
        flow.held += taken;
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flows[1].lock().end(End::Closed);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_late_and_in_pieces() {
        let slow = Manner {
            latency: Duration::from_millis(20),
            chunk: 2,
            pace: Duration::from_millis(5),
        };
        let (mut near, mut far) = connection(slow, Manner::PLAIN);
        let start = Instant::now();
        far.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 16];
        let mut seen = Vec::new();
        for _ in 0..3 {
            let n = near.read(&mut buffer).await.unwrap();
            seen.push((start.elapsed().as_millis(), buffer[..n].to_vec()));
        }
        let expected = [(20, &b"he"[..]), (25, b"ll"), (30, b"o")];
        assert!(
            seen.iter()
                .zip(expected)
                .all(|(a, b)| a.0 == b.0 && a.1 == b.1),
            "{seen:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_comes_after_what_was_written() {
        let (mut near, mut far) = connection(Manner::PLAIN, Manner::PLAIN);
        far.write_all(b"x").await.unwrap();
        far.cutter().reset();
        let mut buffer = [0; 4];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 1);
        assert!(near.read(&mut buffer).await.is_err());
        assert!(near.write(b"y").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_direction_makes_its_writer_wait() {
        let (mut near, mut far) = connection(Manner::PLAIN, Manner::PLAIN);
        far.write_all(&vec![0; CAPACITY]).await.unwrap();
        let writing = tokio::spawn(async move { far.write(b"z").await.unwrap() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!writing.is_finished());
        let mut buffer = [0; 8];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(writing.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_an_end_closes_what_the_other_reads() {
        let (near, mut far) = connection(Manner::PLAIN, Manner::PLAIN);
        drop(near);
        assert_eq!(far.read(&mut [0; 4]).await.unwrap(), 0);
        assert!(far.write(b"y").await.is_err());
    }
}
