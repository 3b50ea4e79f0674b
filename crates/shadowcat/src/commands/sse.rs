//! `sse`: any event stream, followed with the engine.
//!
//! Events go to stdout, one a line; what becomes of the connection goes to stderr, in words. The
//! end of it is the server's (204), a signal, or a reason to give up.

use std::io::Write as _;

use futures_util::StreamExt as _;
use serde_json::json;
use shadowcat_sse::Event;
use shadowcat_sse::client::{ReconnectingStream, Transition};
use shadowcat_sse::reconnect::{Policy, StateName};
use tokio::time::Instant;

use crate::cli::Sse;
use crate::failure::Failure;
use crate::{assembly, print, shutdown};

/// Follows the stream to its end, or to a signal.
///
/// # Errors
/// [`Failure`] when the stream cannot be had (any more).
pub(crate) async fn run(sse: Sse) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals()?;
    let mut events = open(&sse)?;
    let mut transitions = events.transitions();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(transition) = transitions.next() => say(&transition),
            event = events.next() => match event {
                Some(Ok(event)) => print(line(&event, sse.json).as_bytes())?,
                Some(Err(error)) => return Err(Failure::Runtime(explained(error.to_string()))),
                None => break,
            },
        }
    }
    while let Some(transition) = transitions.next().await {
        say(&transition);
    }
    Ok(())
}

/// What to do next, where the library's words do not say so.
fn explained(error: String) -> String {
    match error.contains("invalid peer certificate") {
        true => format!(
            "{error}; is its certificate one that this machine trusts? SSL_CERT_FILE names a PEM \
             file of its issuer (Linux, BSD)"
        ),
        false => error,
    }
}

fn open(sse: &Sse) -> Result<ReconnectingStream, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    // Shared with nobody in this process; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Policy {
        empty_data_primes: false,
        ..assembly::reconnect(&sse.retry)
    };
    let client = reqwest::Client::builder()
        .connect_timeout(policy.connect_timeout)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| Failure::Runtime(format!("no HTTP client: {error}")))?;
    let mut builder = ReconnectingStream::builder(&sse.url.to_string())
        .map_err(|error| unusable(&error))?
        .client(client)
        .headers(sse.headers.clone())
        .policy(policy);
    if let Some(id) = &sse.last_event_id {
        builder = builder.last_event_id(id.as_bytes());
    }
    builder.build().map_err(|error| unusable(&error))
}

/// An event in one line: its id, type and data between tabs, or an object.
fn line(event: &Event, as_json: bool) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = event.id.as_deref().map(text);
    let kind = match &*event.event_type {
        b"" => "message".to_owned(),
        kind => text(kind),
    };
    let data = text(&event.data);
    if as_json {
        return format!("{}\n", json!({"id": id, "event": kind, "data": data}));
    }
    let data = data.replace('\\', "\\\\").replace('\n', "\\n");
    format!("{}\t{kind}\t{data}\n", id.unwrap_or_default())
}

/// What became of the connection, if it is worth a line.
fn say(transition: &Transition) {
    let step = &transition.step;
    let because = transition
        .detail
        .as_deref()
        .unwrap_or("nothing came for too long");
    let text = match step.to {
        StateName::Open => match step.away {
            None => "connected".to_owned(),
            Some(away) => format!("connected again after {} ms", away.as_millis()),
        },
        StateName::Backoff => {
            let wait = step.until.map_or(0, |until| {
                let now = Instant::now().into_std();
                until.saturating_duration_since(now).as_millis()
            });
            format!("{because}; coming back in {wait} ms")
        }
        StateName::Parked | StateName::Failed => because.to_owned(),
        _ => return,
    };
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let event = Event {
            event_type: "tick".into(),
            data: "a\\b\nc".into(),
            id: Some("7".into()),
        };
        assert_eq!(line(&event, false), "7\ttick\ta\\\\b\\nc\n");
        let json = line(&event, true);
        assert_eq!(json.lines().count(), 1);
        assert!(json.contains(r#""data":"a\\b\nc""#), "{json}");
        let plain = line(&Event::default(), false);
        assert_eq!(plain, "\tmessage\t\n");
    }
}
