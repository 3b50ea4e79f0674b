//! What a plan may hold where the server speaks HTTP+SSE (2024-11-05).

use super::{ClientPlan, Ids, Personality, Transport};
use crate::fault::{Fault, How};

/// Such a server, as far as it is like this one.
pub(super) fn server(like: Personality) -> Personality {
    Personality {
        transport: Transport::Sse,
        version: "2024-11-05",
        sessions: true,
        ids: Ids::None,
        priming: false,
        standalone: true,
        retry: None,
        ..like
    }
}

/// What is different where one stream is the session.
pub(super) fn speak(clients: &mut [ClientPlan], comments: bool) {
    // Nobody can tell a silent stream that never had a comment from a quiet one.
    let heard = |fault: Fault| match fault {
        Fault::Cut {
            how: How::Silence,
            event,
            spot,
        } if !comments => Fault::Cut {
            how: How::Close,
            event,
            spot,
        },
        other => other,
    };
    // A POST is accepted or not; its answer comes elsewhere.
    let on_post = |fault: &Fault| !matches!(fault, Fault::Cut { .. } | Fault::Truncated);
    for client in clients {
        let faults = std::mem::take(&mut client.standing_faults);
        client.standing_faults = faults.into_iter().map(heard).collect();
        for fault in &mut client.handshake_faults {
            if *fault == Fault::Empty {
                *fault = Fault::ResetUnexecuted;
            }
        }
        for call in &mut client.calls {
            call.json = false;
            call.post_faults.retain(on_post);
        }
    }
}
