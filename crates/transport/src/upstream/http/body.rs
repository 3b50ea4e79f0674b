//! Reading a response's body whole, within a limit.

use std::future::poll_fn;
use std::time::Duration;

use super::client::Incoming;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::budget::{ReadBudget, Share};
use super::dial::chain;

/// How much of a body that nobody reads is read away, so that its connection can be used again.
const DISCARD_LIMIT: usize = 64 * 1024;
/// And for how long at most.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// How long the body of a failure is waited for. What a status means is known without its body, and
/// who asked is told within about a second of that.
const FAILURE_TIME: Duration = Duration::from_secs(1);

/// Why a body is not whole.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// No memory came free for it.
    NoMemory,
    /// The connection broke, or the framing was wrong.
    Broken(String),
    /// It had begun, and nothing more came for so long.
    Silent(Duration),
}

/// The whole body, at most `limit` bytes. A body that arrived in one piece is not copied. One that
/// has not begun is waited for, like a head; one that has may be silent for `patience` at a time. The
/// connection is free once the body is here.
pub(crate) async fn collect(
    body: &mut Incoming,
    limit: usize,
    budget: &ReadBudget,
    patience: Duration,
) -> Result<Bytes, BodyError> {
    let mut held = Held::Nothing;
    read_into(&mut held, body, limit, budget, patience).await?;
    body.release();
    Ok(held.freeze())
}

/// What comes of a failure's body within [`FAILURE_TIME`], at most `limit` bytes.
pub(crate) async fn collect_failure(
    mut body: Incoming,
    limit: usize,
    budget: &ReadBudget,
) -> Bytes {
    let mut held = Held::Nothing;
    let reading = read_into(&mut held, &mut body, limit, budget, Duration::MAX);
    // Whatever ended it, what came is what there is.
    let _ = timeout(FAILURE_TIME, reading).await;
    held.freeze()
}

/// A body as far as it has been read.
enum Held {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Held {
    fn freeze(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.freeze(),
        }
    }
}

async fn read_into(
    held: &mut Held,
    body: &mut Incoming,
    limit: usize,
    budget: &ReadBudget,
    patience: Duration,
) -> Result<(), BodyError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    match next_data(body).await? {
        None => return Ok(()),
        Some(first) if first.len() > limit => return Err(BodyError::TooLarge),
        Some(first) => *held = Held::One(first),
    }
    if body.is_end_stream() {
        return Ok(());
    }
    let expected = usize::try_from(announced).unwrap_or(limit);
    // Boxed: most answers come in one piece.
    Box::pin(read_rest(held, body, expected, limit, budget, patience)).await
}

/// The pieces after the first. `expected`: what the body announced, in bytes.
async fn read_rest(
    held: &mut Held,
    body: &mut Incoming,
    expected: usize,
    limit: usize,
    budget: &ReadBudget,
    patience: Duration,
) -> Result<(), BodyError> {
    let Some(second) = more_data(body, patience).await? else {
        return Ok(());
    };
    let first = match &*held {
        Held::One(first) => first.clone(),
        Held::Nothing | Held::Many(_) => Bytes::new(),
    };
    let expected = expected.max(first.len() + second.len());
    let mut share = budget.share();
    hold(&mut share, expected).await?;
    let mut pieces = BytesMut::with_capacity(expected);
    pieces.extend_from_slice(&first);
    *held = Held::Many(pieces);
    let mut next = Some(second);
    while let (Some(data), Held::Many(whole)) = (next, &mut *held) {
        let len = whole.len() + data.len();
        if len > limit {
            return Err(BodyError::TooLarge);
        }
        hold(&mut share, len.max(expected)).await?;
        whole.extend_from_slice(&data);
        next = more_data(body, patience).await?;
    }
    Ok(())
}

async fn hold(share: &mut Share, bytes: usize) -> Result<(), BodyError> {
    poll_fn(|cx| share.poll_hold(cx, bytes))
        .await
        .map_err(|_| BodyError::NoMemory)
}

/// As [`discard`], without waiting: what is left is most often here already, and in its own time
/// otherwise.
pub(crate) fn discard_soon(mut body: Incoming) {
    let mut left = DISCARD_LIMIT;
    if read_away(&mut body, &mut left).now_or_never().is_some() {
        return;
    }
    // Without a runtime there is no clock to bound it by.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            let _ = timeout(DISCARD_TIME, read_away(&mut body, &mut left)).await;
        });
    }
}

/// Reads a body away if it is short, so that the connection stays usable; its errors do not matter.
pub(crate) async fn discard(mut body: Incoming) {
    let mut left = DISCARD_LIMIT;
    let _ = timeout(DISCARD_TIME, read_away(&mut body, &mut left)).await;
}

/// Reads to the end of a body, unless it is longer than `left`.
async fn read_away(body: &mut Incoming, left: &mut usize) {
    while let Ok(Some(data)) = next_data(body).await {
        match left.checked_sub(data.len()) {
            Some(rest) => *left = rest,
            None => return,
        }
    }
}

/// More of a body that has begun.
async fn more_data(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, BodyError> {
    let more = timeout(patience, next_data(body)).await;
    more.unwrap_or(Err(BodyError::Silent(patience)))
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Broken(chain(&error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}
