//! The one writer of a pipe: lines wait in a queue that is bounded in bytes, and what is ready
//! leaves in one write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes that may wait before whoever sends has to wait. One longer line may wait alone.
const CAPACITY: u32 = 1 << 20;
/// What a line weighs besides its bytes.
const OVERHEAD: usize = 256;
/// Bytes that one write gathers; a longer line is written as it is.
const GATHER: usize = 64 * 1024;

/// Starts the one writer of `output`. `written` counts bytes.
pub(crate) fn writer(
    output: impl AsyncWrite + Send + Unpin + 'static,
    written: impl Fn(u64) + Send + 'static,
) -> LineWriter {
    let (lines, queue) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CAPACITY as usize));
    let progress = Arc::new(AtomicU64::new(0));
    let writing = Writing {
        output,
        queue,
        room: Arc::clone(&room),
        gathered: BytesMut::new(),
        marks: Vec::new(),
        progress: Arc::clone(&progress),
        written,
    };
    LineWriter {
        sender: LineSender { lines, room },
        progress,
        task: tokio::spawn(writing.run()),
    }
}

/// See [`writer`].
pub(crate) struct LineWriter {
    sender: LineSender,
    progress: Arc<AtomicU64>,
    task: JoinHandle<io::Result<()>>,
}

impl LineWriter {
    /// A way in.
    pub(crate) fn sender(&self) -> LineSender {
        self.sender.clone()
    }

    /// Takes no more lines, writes what is queued, flushes, and closes the pipe. Gives up when
    /// nothing could be written for `patience`.
    ///
    /// # Errors
    /// The pipe's, or [`io::ErrorKind::TimedOut`].
    pub(crate) async fn finish(mut self, patience: Duration) -> io::Result<()> {
        self.refuse();
        let _ = self.sender.lines.send(Entry::End);
        loop {
            let before = self.progress.load(Ordering::Relaxed);
            match timeout(patience, &mut self.task).await {
                Ok(Ok(written)) => return written,
                Ok(Err(_)) => return Err(io::ErrorKind::Other.into()),
                Err(_) if self.progress.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    self.task.abort();
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// Takes no more lines. What was taken is still written.
    pub(crate) fn refuse(&self) {
        self.sender.room.close();
    }

    /// Ends when the pipe is broken, with the reason; a writer that finished has none.
    pub(crate) async fn broken(&mut self) -> io::Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            _ => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

/// A way to the one writer of a pipe.
#[derive(Debug, Clone)]
pub(crate) struct LineSender {
    lines: mpsc::UnboundedSender<Entry>,
    room: Arc<Semaphore>,
}

/// The pipe takes no more lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipeClosed;

impl LineSender {
    /// Queues a line, given without its end; waits while the queue is full. Lines of one sender
    /// that waits for each keep their order.
    pub(crate) async fn send(&self, line: Bytes, mark: Option<Mark>) -> Result<(), PipeClosed> {
        let room = self.room.acquire_many(weight(&line)).await;
        room.map_err(|_| PipeClosed)?.forget();
        if mark.as_ref().is_some_and(|mark| !mark.queue()) {
            self.room.add_permits(weight(&line) as usize);
            return Ok(());
        }
        self.push(line, mark, true)
    }

    /// Queues a line if there is room for it at once; false if not.
    pub(crate) fn try_send(&self, line: Bytes) -> bool {
        match self.room.try_acquire_many(weight(&line)) {
            Ok(room) => room.forget(),
            Err(_) => return false,
        }
        self.push(line, None, true).is_ok()
    }

    fn push(&self, line: Bytes, mark: Option<Mark>, weighed: bool) -> Result<(), PipeClosed> {
        let entry = Entry::Line {
            weight: if weighed { weight(&line) } else { 0 },
            line,
            mark,
        };
        self.lines.send(entry).map_err(|_| PipeClosed)
    }
}

fn weight(line: &Bytes) -> u32 {
    u32::try_from(line.len() + OVERHEAD).map_or(CAPACITY, |weight| weight.min(CAPACITY))
}

#[derive(Debug)]
enum Entry {
    Line {
        line: Bytes,
        weight: u32,
        mark: Option<Mark>,
    },
    End,
}

/// How far a line has come, shared by who sent it and the writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark(Arc<AtomicU8>);

const WAITING: u8 = 0;
const QUEUED: u8 = 1;
const WRITTEN: u8 = 2;
const WITHDRAWN: u8 = 3;

impl Mark {
    /// Says that bytes may leave from now on, for what is no line.
    pub(crate) fn set_written(&self) {
        self.0.store(WRITTEN, Ordering::SeqCst);
    }

    /// Takes the line back; false if it may have left already.
    pub(crate) fn withdraw(&self) -> bool {
        self.step(WAITING, WITHDRAWN) || self.step(QUEUED, WITHDRAWN)
    }

    fn queue(&self) -> bool {
        self.step(WAITING, QUEUED)
    }

    fn failed(&self) {
        self.step(WRITTEN, QUEUED);
    }

    fn write(&self) -> bool {
        self.step(QUEUED, WRITTEN)
    }

    fn step(&self, from: u8, to: u8) -> bool {
        let changed = self
            .0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        changed.is_ok()
    }
}

struct Writing<W, C> {
    output: W,
    queue: mpsc::UnboundedReceiver<Entry>,
    room: Arc<Semaphore>,
    gathered: BytesMut,
    /// The marks of what is to be written next.
    marks: Vec<Mark>,
    progress: Arc<AtomicU64>,
    written: C,
}

impl<W: AsyncWrite + Unpin, C: Fn(u64)> Writing<W, C> {
    async fn run(mut self) -> io::Result<()> {
        let result = self.write_all().await;
        self.room.close();
        result
    }

    async fn write_all(&mut self) -> io::Result<()> {
        let mut next = self.queue.recv().await;
        while let Some(Entry::Line { line, weight, mark }) = next {
            let mut taken = weight as usize;
            self.add(line, mark).await?;
            next = loop {
                match self.queue.try_recv() {
                    Ok(Entry::Line { line, weight, mark }) if self.gathered.len() < GATHER => {
                        taken += weight as usize;
                        self.add(line, mark).await?;
                    }
                    Ok(entry) => break Some(entry),
                    Err(_) => break None,
                }
            };
            self.flush().await?;
            self.output.flush().await?;
            self.room.add_permits(taken);
            if next.is_none() {
                next = self.queue.recv().await;
            }
        }
        self.output.shutdown().await
    }

    async fn add(&mut self, line: Bytes, mark: Option<Mark>) -> io::Result<()> {
        if mark.as_ref().is_some_and(|mark| !mark.write()) {
            return Ok(());
        }
        if line.len() > GATHER {
            self.flush().await?;
            self.marks.extend(mark);
            self.write(&line).await?;
        } else {
            self.marks.extend(mark);
            self.gathered.extend_from_slice(&line);
        }
        self.gathered.extend_from_slice(b"\n");
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let result = self.write(&gathered).await;
        gathered.clear();
        self.gathered = gathered;
        result
    }

    /// Writes piece by piece, so that progress shows. What failed at its first byte was not
    /// written, and its marks say so.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match self.output.write(rest).await {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            };
            let count = written.inspect_err(|_| {
                if rest.len() == bytes.len() {
                    self.marks.iter().for_each(Mark::failed);
                }
            })?;
            rest = &rest[count..];
            self.progress.fetch_add(1, Ordering::Relaxed);
            (self.written)(count as u64);
        }
        self.marks.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn line(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_leaves_in_one_write() {
        let (ours, theirs) = tokio_test_pipe();
        let writer = writer(ours, |_| {});
        let sender = writer.sender();
        for text in ["a", "b", "c"] {
            sender.send(line(text), None).await.unwrap();
        }
        writer.finish(PATIENCE).await.unwrap();
        assert_eq!(theirs.lock().as_slice(), [b"a\nb\nc\n".to_vec()]);
        assert_eq!(sender.send(line("d"), None).await, Err(PipeClosed));
    }

    /// Notes every single write.
    type Writes = Arc<parking_lot::Mutex<Vec<Vec<u8>>>>;
    struct Noting(Writes);

    fn tokio_test_pipe() -> (Noting, Writes) {
        let writes = Writes::default();
        (Noting(Arc::clone(&writes)), writes)
    }

    impl AsyncWrite for Noting {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            self.0.lock().push(bytes.to_vec());
            std::task::Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_makes_senders_wait() {
        let (ours, theirs) = tokio::io::duplex(64);
        let writer = writer(ours, |_| {});
        let sender = writer.sender();
        let text = "x".repeat(1000);
        let mut queued = 0;
        while timeout(PATIENCE, sender.send(line(&text), None))
            .await
            .is_ok()
        {
            queued += 1;
        }
        assert!((700..1000).contains(&queued), "{queued}");
        assert!(!sender.try_send(line(&text)));
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(theirs).lines();
            let mut read = 0;
            while lines.next_line().await.unwrap().is_some() {
                read += 1;
            }
            read
        });
        sender.send(line(&"y".repeat(3 << 20)), None).await.unwrap();
        writer.finish(PATIENCE).await.unwrap();
        assert_eq!(reading.await.unwrap(), queued + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn finishing_gives_up_on_who_never_reads() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let writer = writer(ours, |_| {});
        writer.sender().send(line("abcdefgh"), None).await.unwrap();
        let error = writer.finish(PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "abcd");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_can_be_taken_back_until_it_is_written() {
        let (ours, theirs) = tokio_test_pipe();
        let writer = writer(ours, |_| {});
        let sender = writer.sender();
        let (waiting, queued, written) = (Mark::default(), Mark::default(), Mark::default());
        assert!(waiting.withdraw());
        sender.send(line("1"), Some(waiting)).await.unwrap();
        sender.send(line("2"), Some(queued.clone())).await.unwrap();
        assert!(queued.withdraw() && !queued.withdraw());
        sender.send(line("3"), Some(written.clone())).await.unwrap();
        writer.finish(PATIENCE).await.unwrap();
        assert!(!written.withdraw());
        assert_eq!(theirs.lock().as_slice(), [b"3\n".to_vec()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_pipe_is_told() {
        let (ours, theirs) = tokio::io::duplex(4);
        let mut writer = writer(ours, |_| {});
        drop(theirs);
        let sender = writer.sender();
        let mark = Mark::default();
        let _ = sender.send(line("abcdefgh"), Some(mark.clone())).await;
        assert_eq!(writer.broken().await.kind(), io::ErrorKind::BrokenPipe);
        assert!(mark.withdraw(), "nothing of it was written");
        assert_eq!(sender.send(line("x"), None).await, Err(PipeClosed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_was_begun_is_written() {
        let (ours, theirs) = tokio::io::duplex(4);
        let mut writer = writer(ours, |_| {});
        let mark = Mark::default();
        let sender = writer.sender();
        sender
            .send(line("abcdefgh"), Some(mark.clone()))
            .await
            .unwrap();
        tokio::task::yield_now().await;
        drop(theirs);
        assert_eq!(writer.broken().await.kind(), io::ErrorKind::BrokenPipe);
        assert!(!mark.withdraw());
    }
}
