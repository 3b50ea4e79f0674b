//! What a plan may hold where everybody speaks 2026-07-28.

use super::{ClientPlan, Ids, Mode, Personality, Transport};
use crate::fault::Fault;

/// Such a server, as far as it is like this one.
pub(super) fn server(like: Personality) -> Personality {
    Personality {
        transport: Transport::Modern,
        version: "2026-07-28",
        sessions: true,
        ids: Ids::None,
        priming: false,
        standalone: true,
        ..like
    }
}

/// What is different where every request stands alone.
pub(super) fn speak(clients: &mut [ClientPlan], mode: Mode) {
    for client in clients {
        // Nothing is begun, so nothing can go wrong with it.
        client.handshake_faults.clear();
        // Whoever closes a stream has cancelled its request: there is no coming back.
        client.standing_cuts.clear();
        if mode == Mode::Reverse {
            client.leaves_early = None;
        }
        // A subscription is POSTed.
        for fault in &mut client.standing_faults {
            if let Fault::Redirect { status, .. } = fault {
                *status = 307;
            }
        }
        for call in &mut client.calls {
            call.asks_before = None;
            call.client_cuts.clear();
            if call.method == "ping" {
                call.method = "tools/list";
            }
        }
    }
}
