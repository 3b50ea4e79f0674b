//! What a refusal without a JSON-RPC error is called.

use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::Upstream as _;

use crate::server::{Answer, Server};
use crate::support::*;

/// What is advised can be done, and is not what was done already.
#[tokio::test(start_paused = true)]
async fn a_refusal_advises_what_the_user_can_do() {
    for (http_clients, given) in [(true, false), (false, false), (true, true)] {
        let server = Server::new(|_, _| Answer::Http(http(401, "text/plain", "who?")));
        let mut config = config();
        config.http_clients = http_clients;
        if given {
            let token = "Bearer s3cret".parse().unwrap();
            config.headers.insert("authorization", token);
        }
        let leg = upstream_with(config, &server).leg(Era::Legacy);
        let detail = request(&leg, call(1)).await.unwrap_err().detail;
        let answered = "http://server/mcp answered 401 Unauthorized; ";
        assert!(detail.starts_with(answered), "{detail}");
        let clients_own = http_clients && !given;
        assert_eq!(detail.contains("--forward-auth"), clients_own, "{detail}");
        assert_eq!(detail.contains("give it credentials"), !given, "{detail}");
        let refused = detail.contains("it refuses the credentials that --header gives it");
        assert_eq!(refused, given, "{detail}");
    }
}

/// A body may repeat what the request held, in whatever form.
#[tokio::test(start_paused = true)]
async fn what_a_failure_s_body_says_is_not_repeated() {
    for (kind, body) in [
        ("text/plain", "bad token s3cret"),
        ("application/json", r#"{"detail":"bad token s3cret"}"#),
    ] {
        let server = Server::new(move |_, _| Answer::Http(http(500, kind, body)));
        let mut config = config();
        let token = "Bearer s3cret".parse().unwrap();
        config.headers.insert("authorization", token);
        let leg = upstream_with(config, &server).leg(Era::Legacy);
        let detail = request(&leg, call(1)).await.unwrap_err().detail;
        assert_eq!(
            detail,
            "http://server/mcp answered 500 Internal Server Error"
        );
    }
}
