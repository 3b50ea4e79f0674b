//! Reading a response's body whole, within a limit.

use std::future::poll_fn;
use std::time::Duration;

use super::client::Incoming;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::budget::{ReadBudget, Share};
use super::dial::chain;

/// How much of a body that nobody reads is read away, so that its connection can be used again.
const DISCARD_LIMIT: usize = 64 * 1024;
/// And for how long at most.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// Why a body is not whole.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// No memory came free for it.
    NoMemory,
    /// The connection broke, or the framing was wrong.
    Broken(String),
}

/// The whole body, at most `limit` bytes. A body that arrived in one piece is not copied.
pub(crate) async fn collect(
    mut body: Incoming,
    limit: usize,
    budget: &ReadBudget,
) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let first = match next_data(&mut body).await? {
        None => return Ok(Bytes::new()),
        Some(first) if first.len() > limit => return Err(BodyError::TooLarge),
        Some(first) => first,
    };
    let Some(second) = next_data(&mut body).await? else {
        return Ok(first);
    };
    let expected = usize::try_from(announced).unwrap_or(limit);
    let expected = expected.max(first.len() + second.len());
    let mut share = budget.share();
    hold(&mut share, expected).await?;
    let mut whole = BytesMut::with_capacity(expected);
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(data) = next {
        let held = whole.len() + data.len();
        if held > limit {
            return Err(BodyError::TooLarge);
        }
        hold(&mut share, held.max(expected)).await?;
        whole.extend_from_slice(&data);
        next = next_data(&mut body).await?;
    }
    Ok(whole.freeze())
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
            let _ = tokio::time::timeout(DISCARD_TIME, read_away(&mut body, &mut left)).await;
        });
    }
}

/// Reads a body away if it is short, so that the connection stays usable; its errors do not matter.
pub(crate) async fn discard(mut body: Incoming) {
    let mut left = DISCARD_LIMIT;
    let _ = tokio::time::timeout(DISCARD_TIME, read_away(&mut body, &mut left)).await;
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
