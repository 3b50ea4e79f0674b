//! Answers on streams that stay silent: asked for again, but not all the time.

use std::time::Duration;

use super::{KEY, plan, s, streamed, visit, well};
use crate::fault::How;
use crate::ledger::{Facts, Outcome};
use crate::oracle::violations;
use crate::plan::Plan;

/// A server that answers GETs from its store only, and has no wishes.
fn store_only() -> Plan {
    let mut plan = plan();
    plan.server.transport = crate::plan::Transport::Streamable;
    plan.server.store_only = true;
    plan.server.retry = None;
    plan.idle_timeout = s(40);
    plan.clients[0].calls[0].client_cuts.clear();
    plan.clients[0].calls[0].polls_after = None;
    plan.clients[0].calls[0].padding = 0;
    plan
}

/// A call whose stream broke at 3 s, and whose GETs were made then.
fn asked_at(times: &[Duration]) -> Facts {
    let mut call = well();
    call.posts = vec![visit(1, streamed(true, Some((3, How::Close)), false))];
    for (n, at) in times.iter().enumerate() {
        let last = n + 1 == times.len();
        let mut get = visit(4 + n as u64, streamed(true, None, last));
        get.cursor = Some("s1:0/1".into());
        (get.at, get.until) = (*at, *at);
        call.gets.push(get);
    }
    let end = *times.last().unwrap();
    call.outcomes = vec![(end, Outcome::Result(1))];
    let mut facts = Facts::default();
    facts.calls.insert(KEY, call);
    facts
}

fn found(plan: &Plan, seconds: &[f64]) -> Vec<String> {
    let times: Vec<_> = seconds
        .iter()
        .map(|at| Duration::from_secs_f64(*at))
        .collect();
    violations(plan, &asked_at(&times))
}

#[test]
fn a_silent_server_is_asked_again_in_time_and_not_too_often() {
    let well = found(&store_only(), &[3.2, 5.5, 9.8, 18.1, 28.4]);
    assert_eq!(well, Vec::<String>::new());
    let late = found(&store_only(), &[3.2, 5.5, 20.0]);
    assert!(
        late.len() == 1 && late[0].contains("not asked for again"),
        "{late:?}"
    );
    let early = found(&store_only(), &[3.2, 5.0, 9.3]);
    assert!(
        early.len() == 1 && early[0].contains("asked for again after"),
        "{early:?}"
    );
}

#[test]
fn a_server_that_speaks_may_be_left_alone() {
    let mut plan = store_only();
    plan.server.store_only = false;
    assert_eq!(found(&plan, &[3.2, 5.5, 35.8]), Vec::<String>::new());
    assert_eq!(found(&plan, &[3.2, 4.0]).len(), 1);
}

#[test]
fn a_server_that_wants_time_gets_it() {
    let mut plan = store_only();
    plan.server.retry = Some(20_000);
    assert_eq!(found(&plan, &[23.2, 103.6]), Vec::<String>::new());
    assert_eq!(found(&plan, &[23.2, 123.6]).len(), 1);
}
