//! A line about trouble names its request, whether or not the request had a span before. In a
//! process of its own: what is logged where is remembered for the whole process.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use shadowcat_mcp::message::RequestId;
use shadowcat_mcp::method::Method;
use shadowcat_transport::request_span::{RequestSpan, in_request};
use tracing::level_filters::LevelFilter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(level: LevelFilter) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let session = Arc::new(tracing::error_span!("session", id = 7));
        let id = RequestId::String("a".into());
        let request = RequestSpan::new(&session, &id, &Method::Ping);
        let work = async {
            tracing::debug!("a detail");
            in_request(|| tracing::info!("trouble"));
        };
        assert!(request.scope(work).now_or_never().is_some());
        in_request(|| tracing::info!("afterwards"));
    });
    String::from_utf8_lossy(&lines.0.lock()).into_owned()
}

#[test]
fn a_line_stands_in_its_request_at_every_level() {
    let span = r#"session{id=7}:request{id="a" method=ping}"#;
    for level in [LevelFilter::INFO, LevelFilter::DEBUG] {
        let text = logged(level);
        let line = |part: &str| text.lines().find(|line| line.contains(part));
        assert!(line("trouble").unwrap().contains(span), "{text}");
        assert!(!line("afterwards").unwrap().contains("request"), "{text}");
        assert!(
            line("a detail").is_none_or(|line| line.contains(span)),
            "{text}"
        );
        assert_eq!(line("a detail").is_some(), level == LevelFilter::DEBUG);
    }
}
