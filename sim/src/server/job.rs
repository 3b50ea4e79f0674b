//! The server's work on one call, which goes on whether anybody is connected or not.

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::log::{Log, What};
use super::{Server, Session};
use crate::ledger::CallKey;
use crate::plan::{CallPlan, Ids, Replay, Transport};

/// A message that all calls have in common.
const SAME: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":"same","_meta":{"same":true}}}"#;

impl Server {
    /// Runs a call: its messages in time, the server's question, the response.
    pub(super) fn start(
        self: &Arc<Self>,
        session: &Arc<Session>,
        key: CallKey,
        exec: u32,
        plan: CallPlan,
        id: Value,
    ) -> Arc<Log> {
        let log = match self.plan.server.transport {
            Transport::Streamable | Transport::Modern => self.own_stream(session, key),
            Transport::Sse | Transport::Stdio => Arc::clone(&session.standalone),
        };
        let cancelled = CancellationToken::new();
        session.cancelled.lock().insert(key, cancelled.clone());
        let (server, session, job) = (Arc::clone(self), Arc::clone(session), Arc::clone(&log));
        if self.plan.server.priming && !plan.json {
            log.append(String::new(), What::Priming, true);
        }
        tokio::spawn(async move {
            let working = server.work(&session, &job, key, exec, &plan, &id);
            tokio::select! {
                biased;
                () = session.gone.cancelled() => {}
                () = cancelled.cancelled() => {}
                () = working => {}
            }
        });
        log
    }

    /// A stream for one call.
    fn own_stream(&self, session: &Session, key: CallKey) -> Arc<Log> {
        let log = {
            let mut streams = session.streams.lock();
            let log = Arc::new(Log::new(
                format!("{}:{}", session.name, streams.len()),
                Some(key),
                &session.clock,
            ));
            streams.push(Arc::clone(&log));
            log
        };
        self.ledger
            .with(|facts| facts.streams.insert(log.name.clone(), key));
        log
    }

    async fn work(
        &self,
        session: &Session,
        log: &Log,
        key: CallKey,
        exec: u32,
        plan: &CallPlan,
        id: &Value,
    ) {
        let shared = self.plan.server.transport.is_pipe();
        // Of what names no call nothing tells the order there.
        let one_log = self.plan.server.replay == Replay::Session;
        let pad: String = "é😀x".chars().cycle().take(plan.padding / 3).collect();
        let mut number = 0;
        let mut say = |message: String| {
            number += 1;
            let mark = (exec, number);
            let with_id = self.gives_id(number);
            if with_id {
                self.ledger.call(key, |call| call.with_id.push(mark));
            }
            log.append(message, What::Message(key, mark), with_id);
            // On a stream for everything such a message would be nobody's.
            if !with_id && !shared {
                // Two that say the same are two.
                let echo = format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"debug","data":"echo","_meta":{{"call":"{key}","exec":{exec},"echo":true}}}}}}"#
                );
                log.append(echo.clone(), What::Echo, false);
                log.append(echo, What::Echo, false);
            }
            number + 1
        };
        let mut next = 1;
        for n in 1..=plan.messages {
            if plan.asks_before == Some(n) {
                let ask = format!("ask-{key}-{exec}");
                self.ledger.call(key, |call| call.asks.push((exec, next)));
                next = say(format!(
                    r#"{{"jsonrpc":"2.0","id":"{ask}","method":"elicitation/create","params":{{"message":"?","requestedSchema":{{"type":"object","properties":{{}}}},"_meta":{{"call":"{key}","exec":{exec},"n":{next}}},"pad":"é"}}}}"#
                ));
                loop {
                    let answered = session.answered.notified();
                    if session.answers.lock().contains_key(&ask) {
                        break;
                    }
                    answered.await;
                }
            }
            tokio::time::sleep(plan.gap).await;
            if self.plan.server.counts && n % 2 == 0 {
                // What another call says too, under the same number.
                log.append(SAME.to_owned(), What::Echo, true);
                self.ledger.call(key, |call| call.same_made += 1);
                continue;
            }
            next = if n % 2 == 1 || shared || one_log {
                (self.ledger).call(key, |call| call.progress.insert((exec, next), n));
                say(format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"{key}","progress":{n},"_meta":{{"call":"{key}","exec":{exec},"n":{next}}},"pad":"{pad}"}}}}"#
                ))
            } else {
                say(format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"é","_meta":{{"call":"{key}","exec":{exec},"n":{next}}},"pad":"{pad}"}}}}"#
                ))
            };
        }
        tokio::time::sleep(plan.gap).await;
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"call":"{key}","exec":{exec}}},"content":[],"pad":"é"}}}}"#
        );
        let what = match shared {
            true => What::Result(key),
            false => What::Response,
        };
        log.append(text, what, self.plan.server.ids != Ids::None);
    }
}
