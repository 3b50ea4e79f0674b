//! What goes wrong with one message or one stream.

use crate::fault::{After, Fault, How, Spot};
use crate::rng::Rng;

pub(super) fn may_hang(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::HangHead
            | Fault::Cut {
                how: How::Silence,
                ..
            }
    )
}

pub(in crate::plan) fn spot(rng: &mut Rng) -> Spot {
    let inside = Spot::Inside(rng.range(1, 255) as u8);
    rng.pick(&[
        Spot::Before,
        inside,
        inside,
        inside,
        Spot::Character,
        Spot::IdData,
        Spot::CrLf,
        Spot::Unfinished,
        Spot::After,
        Spot::After,
    ])
}

fn cut(rng: &mut Rng, messages: u32) -> Fault {
    Fault::Cut {
        how: rng.pick(&[
            How::End,
            How::End,
            How::Close,
            How::Reset,
            How::Reset,
            How::Silence,
        ]),
        event: rng.range(0, u64::from(messages) + 2) as u32,
        spot: spot(rng),
    }
}

fn after(rng: &mut Rng) -> After {
    let seconds = rng.pick(&[0, 1, 1, 2, 2, 5, 5, 20, 100]);
    rng.pick(&[After::Seconds(seconds), After::Date(seconds)])
}

fn busy(rng: &mut Rng) -> Fault {
    let status = rng.pick(&[429, 503]);
    let bare = status == 429 && rng.chance(30);
    Fault::Busy {
        status,
        after: if bare { After::Absent } else { after(rng) },
    }
}

pub(super) fn post_fault(rng: &mut Rng, json: bool, messages: u32) -> Fault {
    if !json && rng.chance(55) {
        return cut(rng, messages);
    }
    let status = rng.pick(&[500, 502, 503, 504, 408, 400, 401, 403, 501]);
    let error = rng.chance(30);
    let forget = Fault::Forget {
        status: rng.pick(&[404, 404, 400]),
    };
    let good = rng.chance(75);
    let redirect = Fault::Redirect {
        status: if good {
            rng.pick(&[307, 308])
        } else {
            rng.pick(&[301, 302, 303, 307])
        },
        good,
    };
    let busy = busy(rng);
    rng.pick(&[
        Fault::CloseUnexecuted,
        Fault::ResetUnexecuted,
        Fault::ResetExecuted,
        Fault::HangHead,
        Fault::Status { status, error },
        Fault::Status { status, error },
        busy.clone(),
        busy.clone(),
        busy,
        forget.clone(),
        forget,
        redirect.clone(),
        redirect,
        Fault::Accepted,
        Fault::Empty,
        Fault::WrongType,
        if json {
            Fault::Truncated
        } else {
            Fault::ResetExecuted
        },
    ])
}

pub(super) fn get_fault(rng: &mut Rng, messages: u32) -> Fault {
    if rng.chance(45) {
        return cut(rng, messages);
    }
    let fatal = rng.pick(&[400, 400, 401, 405, 405, 204, 204, 501]);
    let passing = rng.pick(&[408, 500, 500, 502, 503, 504]);
    let (status, error) = (if rng.chance(35) { fatal } else { passing }, false);
    let passing = Fault::Status { status, error };
    let busy = busy(rng);
    let redirect = Fault::Redirect {
        status: rng.pick(&[301, 302, 303, 307, 308]),
        good: true,
    };
    let rare = rng.pick(&[
        Fault::Forget { status: 404 },
        Fault::Forget { status: 400 },
        Fault::Empty,
        Fault::WrongType,
        Fault::HangHead,
        Fault::Status {
            status: 409,
            error: false,
        },
    ]);
    rng.pick(&[
        Fault::ResetUnexecuted,
        Fault::CloseUnexecuted,
        passing.clone(),
        passing.clone(),
        passing,
        busy.clone(),
        busy,
        redirect,
        rare,
    ])
}

pub(super) fn standing_fault(rng: &mut Rng) -> Fault {
    let fault = get_fault(rng, 4);
    // A stream that is refused for good is refused once in a while only: it is tested then, and
    // nothing else is.
    match fault {
        Fault::Status { status, .. }
            if matches!(status, 401 | 403 | 405 | 204 | 501 | 505) && rng.chance(60) =>
        {
            Fault::Status {
                status: 500,
                error: false,
            }
        }
        fault => fault,
    }
}

pub(super) fn handshake_fault(rng: &mut Rng) -> Fault {
    let busy = busy(rng);
    rng.pick(&[
        Fault::CloseUnexecuted,
        Fault::ResetUnexecuted,
        Fault::Status {
            status: 500,
            error: false,
        },
        busy,
        Fault::Empty,
    ])
}
