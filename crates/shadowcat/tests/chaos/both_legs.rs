//! Both legs broken at once: the server's stream resumes from its ids, the client's from ours.

use crate::script::{At, End, Fault, Script, Seen, call};
use crate::support::MODES;
use crate::support::client::{Client, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{Gate, Step, Upstream};
use crate::upstream_leg::OPTIONS;

/// The server's stream breaks after message 2 and stays away while the client breaks its own
/// stream, too; then both come back.
#[tokio::test]
async fn at_once() {
    for mode in MODES {
        for end in [End::Clean, End::Close, End::Reset] {
            let script = Script::new([Fault::Cut(At::After(2), end)]);
            let gate = Gate::default();
            let held = gate.clone();
            let upstream = Upstream::start(move |request| {
                let mut answer = script.answer(request);
                if request.header("last-event-id").is_some() {
                    answer.0.insert(0, Step::Gate(held.clone()));
                }
                answer
            })
            .await;
            let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let mut client = Client::connect(proxy.address).await;
            client.send(session.post(&call())).await;
            client.head().await;
            let mut seen = Seen::default();
            let mut events = Events::default();
            while seen.messages.len() < 2 {
                let event = client.event(&mut events).await.unwrap().unwrap();
                seen.take(&event);
            }
            client.reset();
            gate.open();
            seen.resume(&session).await;
            seen.check();
            assert_eq!(upstream.calls("tools/call").len(), 1, "{mode} {end:?}");
        }
    }
}
