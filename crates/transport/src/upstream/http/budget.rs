//! The memory that unfinished messages of one server may hold together.
//!
//! A stream or body holds its first 64 KiB for free. Beyond that it draws on a shared budget; when
//! that is used up, reading waits, which slows the server by back-pressure, and gives up after ten
//! seconds, so that a hundred half-sent giants cannot block each other for good.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Timeout, timeout};

/// What all streams and bodies of one server may hold beyond their free part.
const TOTAL: usize = 64 * 1024 * 1024;
/// What each holds for free.
const FREE: usize = 64 * 1024;
/// The budget is drawn on in pieces of this size.
const PIECE: usize = 16 * 1024;
/// How long a reader waits for its share.
const PATIENCE: Duration = Duration::from_secs(10);

/// The budget of one server.
pub(crate) struct ReadBudget(Arc<Semaphore>);

/// What one reader holds of it; given back when dropped.
pub(crate) struct Share {
    budget: Arc<Semaphore>,
    pieces: Option<OwnedSemaphorePermit>,
    waiting: Option<Pin<Box<Timeout<Acquire>>>>,
}

type Acquire = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The budget stayed used up.
#[derive(Debug)]
pub(crate) struct Exhausted;

impl ReadBudget {
    /// A budget that the largest allowed message fits in, whatever else there is.
    pub(crate) fn new(max_message: usize) -> Self {
        let total = TOTAL.max(max_message).div_ceil(PIECE);
        Self(Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))))
    }

    /// A reader's share, empty at first.
    pub(crate) fn share(&self) -> Share {
        Share {
            budget: Arc::clone(&self.0),
            pieces: None,
            waiting: None,
        }
    }
}

impl Share {
    /// Makes the share fit `held` bytes; pending while the budget is used up.
    pub(crate) fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        held: usize,
    ) -> Poll<Result<(), Exhausted>> {
        let needed = held.saturating_sub(FREE).div_ceil(PIECE);
        loop {
            let have = self
                .pieces
                .as_ref()
                .map_or(0, |pieces| pieces.num_permits());
            if needed <= have {
                self.waiting = None;
                self.give_back(have - needed);
                return Poll::Ready(Ok(()));
            }
            let missing = u32::try_from(needed - have).unwrap_or(u32::MAX);
            let waiting = self.waiting.get_or_insert_with(|| {
                let more: Acquire = Box::pin(Arc::clone(&self.budget).acquire_many_owned(missing));
                Box::pin(timeout(PATIENCE, more))
            });
            let more = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            let Ok(Ok(more)) = more else {
                return Poll::Ready(Err(Exhausted));
            };
            match &mut self.pieces {
                Some(pieces) => pieces.merge(more),
                None => self.pieces = Some(more),
            }
        }
    }

    fn give_back(&mut self, surplus: usize) {
        if surplus > 0
            && let Some(pieces) = &mut self.pieces
        {
            drop(pieces.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn hold(share: &mut Share, held: usize) -> Result<(), Exhausted> {
        poll_fn(|cx| share.poll_hold(cx, held)).await
    }

    #[tokio::test(start_paused = true)]
    async fn small_readers_draw_nothing() {
        let budget = ReadBudget::new(0);
        let mut share = budget.share();
        hold(&mut share, FREE).await.unwrap();
        assert_eq!(budget.0.available_permits(), TOTAL / PIECE);
        hold(&mut share, FREE + 1).await.unwrap();
        assert_eq!(budget.0.available_permits(), TOTAL / PIECE - 1);
        hold(&mut share, 0).await.unwrap();
        assert_eq!(budget.0.available_permits(), TOTAL / PIECE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_up_budget_makes_readers_wait_then_fail() {
        let budget = ReadBudget::new(0);
        let (mut first, mut second) = (budget.share(), budget.share());
        hold(&mut first, FREE + TOTAL).await.unwrap();
        let started = tokio::time::Instant::now();
        hold(&mut second, 2 * FREE).await.unwrap_err();
        assert_eq!(started.elapsed(), PATIENCE);
        drop(first);
        hold(&mut second, 2 * FREE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_reader_goes_on_when_another_is_done() {
        let budget = ReadBudget::new(0);
        let (mut first, mut second) = (budget.share(), budget.share());
        hold(&mut first, FREE + TOTAL).await.unwrap();
        let waiting = tokio::spawn(async move { hold(&mut second, 2 * FREE).await.is_ok() });
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(first);
        assert!(waiting.await.unwrap());
    }
}
