//! A check's findings in words and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shadowcat_transport::upstream::http::Resumption;

use super::findings::{EraFindings, Findings, Transport};

/// For a person.
pub(super) fn text(server: &str, findings: &Findings) -> String {
    let mut text = format!("{server} can be used\n");
    let mut line = |name: &str, rest: &str| {
        let _ = writeln!(text, "  {name:<12}{rest}");
    };
    let eras = [&findings.legacy, &findings.modern];
    if let Some(name) = eras.iter().find_map(|era| era.as_ref()?.name.as_ref()) {
        line("server", name);
    }
    line("transport", findings.transport.name());
    if let Some(legacy) = &findings.legacy {
        let versions = legacy.versions.join(", ");
        line("legacy", &format!("{versions}, by initialize"));
    } else {
        line("legacy", "no: it refuses initialize");
    }
    match &findings.modern {
        Some(modern) => line(
            "modern",
            &format!("{}, by server/discover", modern.versions.join(", ")),
        ),
        None => line("modern", "no"),
    }
    line("session", session(findings));
    line("standalone", standalone(findings));
    line("resumable", &resumable(findings));
    let both = findings.legacy.is_some() && findings.modern.is_some();
    for (name, era) in [("legacy", &findings.legacy), ("modern", &findings.modern)] {
        if let Some(era) = era {
            let of = if both {
                format!(" ({name})")
            } else {
                String::new()
            };
            line("offers", &format!("{}{of}", offered(era)));
        }
    }
    text
}

fn session(findings: &Findings) -> &'static str {
    match (findings.transport, &findings.examination) {
        (Transport::Stdio, _) => "the process",
        (Transport::HttpSse, _) => "the event stream",
        (Transport::StreamableHttp, Some(seen)) if seen.session => "yes",
        (Transport::StreamableHttp, _) => "no",
    }
}

fn standalone(findings: &Findings) -> &'static str {
    match (findings.transport, &findings.examination) {
        (Transport::Stdio | Transport::HttpSse, _) => "everything comes by one channel",
        (Transport::StreamableHttp, Some(seen)) if seen.standalone => "offered",
        (Transport::StreamableHttp, Some(_)) => "not offered",
        (Transport::StreamableHttp, None) => "none in this era; subscriptions/listen instead",
    }
}

fn resumable(findings: &Findings) -> String {
    let Some(seen) = &findings.examination else {
        return match findings.transport {
            Transport::Stdio => "no: a crash ends its session; shadowcat starts a new one",
            Transport::HttpSse => "no: a new connection is a new session",
            Transport::StreamableHttp => "no: this era has no event ids",
        }
        .to_owned();
    };
    match seen.resumption {
        Resumption::Offered => {
            "yes: events carry ids, and a return with Last-Event-ID is answered".to_owned()
        }
        Resumption::Refused(status) => {
            format!("no: events carry ids, but a return with Last-Event-ID gets status {status}")
        }
        Resumption::NoIds => {
            "no: events carry no ids; an answer that is cut off is lost".to_owned()
        }
        Resumption::NoEvents => "not seen: it answered without event streams".to_owned(),
    }
}

/// The capabilities in short.
fn offered(era: &EraFindings) -> String {
    let Some(capabilities) = era.capabilities.as_object() else {
        return "nothing".to_owned();
    };
    let parts: Vec<_> = capabilities
        .iter()
        .map(|(name, details)| {
            let mut notes: Vec<String> = Vec::new();
            if let (true, Some(tools)) = (name == "tools", era.tools) {
                notes.push(tools.to_string());
            }
            if details["listChanged"] == true {
                notes.push("tells of changes".to_owned());
            }
            if details["subscribe"] == true {
                notes.push("subscriptions".to_owned());
            }
            if notes.is_empty() {
                name.clone()
            } else {
                format!("{name} ({})", notes.join(", "))
            }
        })
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

/// For a program: one object, one line.
pub(super) fn json(server: &str, found: &Result<Findings, String>) -> String {
    let mut value = match found {
        Ok(findings) => describe(findings),
        Err(problem) => json!({"usable": false, "problem": problem}),
    };
    value["server"] = json!(server);
    format!("{value}\n")
}

fn describe(findings: &Findings) -> Value {
    let era = |era: &Option<EraFindings>| match era {
        None => Value::Null,
        Some(era) => json!({
            "versions": era.versions,
            "name": era.name,
            "capabilities": era.capabilities,
            "tools": era.tools,
        }),
    };
    let resumable = findings
        .examination
        .as_ref()
        .map(|seen| match seen.resumption {
            Resumption::Offered => json!(true),
            Resumption::Refused(_) | Resumption::NoIds => json!(false),
            Resumption::NoEvents => Value::Null,
        });
    json!({
        "usable": true,
        "transport": match findings.transport {
            Transport::Stdio => "stdio",
            Transport::StreamableHttp => "streamable-http",
            Transport::HttpSse => "http+sse",
        },
        "legacy": era(&findings.legacy),
        "modern": era(&findings.modern),
        "session": findings.examination.as_ref().map(|seen| seen.session),
        "standalone": findings.examination.as_ref().map(|seen| seen.standalone),
        "resumable": resumable.unwrap_or(json!(false)),
    })
}
