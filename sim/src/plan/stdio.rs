//! What a plan may hold where the server is a process for each session.

use std::time::Duration;

use super::draw::{ms, spot};
use super::{ClientPlan, Ids, Personality, Transport};
use crate::fault::{ChildPlan, Fault, How, Start, Stubborn};
use crate::rng::Rng;

/// Such a server, as far as it is like this one.
pub(super) fn server(like: Personality) -> Personality {
    Personality {
        transport: Transport::Stdio,
        sessions: true,
        ids: Ids::None,
        priming: false,
        standalone: true,
        line_end: match like.line_end {
            "\r" => "\n",
            line_end => line_end,
        },
        bom: false,
        retry: None,
        comments: None,
        ..like
    }
}

/// What is different on a pair of pipes: there are no statuses, and whatever breaks breaks for all.
pub(super) fn speak(clients: &mut [ClientPlan]) {
    let on_pipe = |fault: &Fault| {
        matches!(
            fault,
            Fault::CloseUnexecuted
                | Fault::ResetUnexecuted
                | Fault::ResetExecuted
                | Fault::HangHead
                | Fault::Status { .. }
        )
    };
    for client in clients {
        client.standing_faults.clear();
        client.handshake_faults.retain(on_pipe);
        for call in &mut client.calls {
            call.json = false;
            call.post_faults.retain(on_pipe);
            call.get_faults.clear();
        }
    }
}

/// What befalls the server's processes, one after the other.
pub(super) fn children(rng: &mut Rng, troubled: bool) -> Vec<ChildPlan> {
    let some = troubled && rng.chance(80);
    let count = if some { rng.range(1, 6) } else { 0 };
    (0..count).map(|_| child(rng)).collect()
}

fn child(rng: &mut Rng) -> ChildPlan {
    let slow = Start::Slow(ms(100, 20_000, rng));
    let start = rng.pick(&[
        Start::Well,
        Start::Well,
        Start::Well,
        Start::Well,
        Start::Well,
        Start::Refused,
        slow,
        Start::Exits,
        Start::ExitsInHandshake,
        Start::ExitsInAnswer,
    ]);
    let how = rng.pick(&[
        How::End,
        How::End,
        How::Close,
        How::Close,
        How::Reset,
        How::Reset,
        How::Silence,
        How::Silence,
    ]);
    let line = rng.range(0, 12) as u32;
    let cut = (how, line, spot(rng));
    ChildPlan {
        start,
        cut: rng.chance(80).then_some(cut),
        stubborn: rng.pick(&[
            Stubborn::Never,
            Stubborn::Never,
            Stubborn::Once,
            Stubborn::Always,
            Stubborn::Always,
        ]),
    }
}

/// Whether a process may leave its callers waiting.
pub(super) fn may_hang(child: &ChildPlan) -> bool {
    let long = matches!(child.start, Start::Slow(time) if time > Duration::from_secs(5));
    long || child.cut.is_some_and(|(how, ..)| how == How::Silence)
}
