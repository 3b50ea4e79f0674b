//! The process's own standard input and output, so that neither holds up its end.
//!
//! tokio's standard input reads on a thread of the runtime, which the runtime waits for when it
//! shuts down: until the client sends another line. Pipes and sockets, which is what clients give
//! their servers, are watched by the reactor instead; anything else (a terminal, a file) is read by
//! a thread that nobody waits for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Bytes of one read of the thread.
const READ: usize = 64 * 1024;

/// The process's standard input, as [`standard_input`] gives it.
pub type StandardInput = Box<dyn AsyncRead + Send + Unpin>;
/// The process's standard output, as [`standard_output`] gives it.
pub type StandardOutput = Box<dyn AsyncWrite + Send + Unpin>;

/// The process's standard input. Needs a tokio runtime; to be called once.
///
/// # Errors
/// There is none, or no thread can be started to read it.
pub fn standard_input() -> io::Result<StandardInput> {
    let fd = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(match Watched::of(fd)? {
        Watched::Pipe(file) => Box::new(pipe::Receiver::from_file(file)?),
        Watched::Socket(stream) => Box::new(stream),
        Watched::Neither => Box::new(Threaded::new(io::stdin())?),
    })
}

/// The process's standard output. Needs a tokio runtime; to be called once.
///
/// # Errors
/// There is none.
pub fn standard_output() -> io::Result<StandardOutput> {
    let fd = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(match Watched::of(fd)? {
        Watched::Pipe(file) => Box::new(pipe::Sender::from_file(file)?),
        Watched::Socket(stream) => Box::new(stream),
        Watched::Neither => Box::new(tokio::io::stdout()),
    })
}

/// What the reactor can do with a descriptor.
enum Watched {
    Pipe(File),
    Socket(UnixStream),
    Neither,
}

impl Watched {
    fn of(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let about = file.metadata()?;
        // Watching means non-blocking, which holds for everybody who shares the open file. The log
        // on stderr must stay blocking, or lines are lost.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
        if (about.dev(), about.ino()) == (stderr.dev(), stderr.ino()) {
            return Ok(Self::Neither);
        }
        let kind = about.file_type();
        if kind.is_fifo() {
            return Ok(Self::Pipe(file));
        }
        if kind.is_socket() {
            let stream = StdUnixStream::from(OwnedFd::from(file));
            stream.set_nonblocking(true)?;
            return UnixStream::from_std(stream).map(Self::Socket);
        }
        Ok(Self::Neither)
    }
}

/// What a thread of its own reads.
struct Threaded {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Threaded {
    fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(2);
        let read = move || {
            let mut buffer = vec![0; READ];
            loop {
                let piece = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(read)?;
        Ok(Self {
            pieces,
            current: Bytes::new(),
        })
    }
}

impl AsyncRead for Threaded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.current = piece?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.current.len().min(into.remaining());
        into.put_slice(&self.current[..count]);
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_pipe_and_a_socket_are_watched_and_a_file_is_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        let Watched::Pipe(file) = Watched::of(reader.into()).unwrap() else {
            panic!("a pipe is a pipe");
        };
        let mut watched = pipe::Receiver::from_file(file).unwrap();
        writer.write_all(b"line\n").unwrap();
        drop(writer);
        let mut text = String::new();
        watched.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "line\n");
        let (ours, _theirs) = StdUnixStream::pair().unwrap();
        assert!(matches!(
            Watched::of(ours.into()).unwrap(),
            Watched::Socket(_)
        ));
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(
            Watched::of(file.into()).unwrap(),
            Watched::Neither
        ));
    }

    #[tokio::test]
    async fn a_thread_reads_what_cannot_be_watched() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = Threaded::new(reader).unwrap();
        let text = "x".repeat(3 * READ);
        let sent = text.clone();
        let sending = std::thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
        let mut read = String::new();
        input.read_to_string(&mut read).await.unwrap();
        sending.join().unwrap();
        assert_eq!(read, text);
    }
}
