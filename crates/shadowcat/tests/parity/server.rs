//! The server of the tables: legacy or modern as it is asked, with a tool for every kind of answer.

use serde_json::{Value, json};

use crate::support::upstream::{self, Answer, Request};

/// Answers one request.
pub fn answer(request: &Request) -> Answer {
    if request.header("mcp-protocol-version") == Some("2026-07-28") {
        return modern(request);
    }
    if let Some(answer) = initialize(request).or_else(|| upstream::basics(request)) {
        return answer;
    }
    let id = request.id();
    match request.rpc().as_str() {
        "tools/list" => Answer::result(&id, json!({"tools": []})),
        "tools/call" => call(request, &id),
        _ => Answer::json(&not_found(&id)),
    }
}

/// The handshakes that fail: what the client calls itself says how.
fn initialize(request: &Request) -> Option<Answer> {
    let json = request.json();
    if request.rpc() != "initialize" {
        return None;
    }
    let result = |version: Value| {
        let result = json!({"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "scripted", "version": "1"}});
        Some(Answer::result(&json["id"], result))
    };
    match json["params"]["clientInfo"]["name"].as_str()? {
        "answer with an unknown version" => result(json!("2031-01-01")),
        "answer with a modern version" => result(json!("2026-07-28")),
        "answer without a version" => result(Value::Null),
        "answer with 2024-11-05" => result(json!("2024-11-05")),
        "refuse with a session id" => Some(Answer::whole(
            "400 Bad Request",
            "content-type: application/json\r\nmcp-session-id: dead\r\n",
            r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: no"}}"#,
        )),
        "challenge" => Some(challenge()),
        _ => None,
    }
}

fn challenge() -> Answer {
    Answer::whole(
        "401 Unauthorized",
        "www-authenticate: Bearer realm=\"server\"\r\ncontent-type: application/json\r\n",
        r#"{"error":"invalid_token"}"#,
    )
}

fn call(request: &Request, id: &Value) -> Answer {
    match request.tool().as_str() {
        "unauthorized" => challenge(),
        "forbidden" => Answer::whole("403 Forbidden", "content-type: text/plain\r\n", "go away"),
        "stream" => Answer::events()
            .event("up-1", &progress(request))
            .event("up-2", &upstream::text(id, "streamed"))
            .end(),
        "headers" => Answer::whole(
            "200 OK",
            "content-type: application/json\r\nx-server: kept\r\nset-cookie: a=1\r\nconnection: x-hop\r\nx-hop: 1\r\naccess-control-allow-origin: *\r\nserver: scripted\r\nmcp-session-id: other\r\n",
            &upstream::text(id, "headers").to_string(),
        ),
        "not found" => Answer::whole(
            "404 Not Found",
            "content-type: application/json\r\n",
            &not_found(id).to_string(),
        ),
        "broken" => Answer::whole("500 Internal Server Error", "", "sorry"),
        name => Answer::json(&upstream::text(id, name)),
    }
}

fn progress(request: &Request) -> Value {
    let json = request.json();
    let token = &json["params"]["_meta"]["progressToken"];
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
}

fn modern(request: &Request) -> Answer {
    let id = request.id();
    match request.rpc().as_str() {
        "server/discover" => Answer::result(
            &id,
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"}),
        ),
        "tools/list" => Answer::result(
            &id,
            json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "public"}),
        ),
        "tools/call" => modern_call(request, &id),
        _ => Answer::whole(
            "404 Not Found",
            "content-type: application/json\r\n",
            &not_found(&id).to_string(),
        ),
    }
}

fn modern_call(request: &Request, id: &Value) -> Answer {
    match request.tool().as_str() {
        "stream" => Answer::events()
            .data(&progress(request))
            .data(&modern_text(id, "streamed"))
            .end(),
        "needs sampling" => {
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32021, "message": "Missing required client capability", "data": {"requiredCapabilities": {"sampling": {}}}}});
            Answer::whole(
                "400 Bad Request",
                "content-type: application/json\r\n",
                &error.to_string(),
            )
        }
        "unauthorized" => challenge(),
        "broken" => Answer::whole("500 Internal Server Error", "", "sorry"),
        name => Answer::json(&modern_text(id, name)),
    }
}

fn modern_text(id: &Value, text: &str) -> Value {
    let content = json!([{"type": "text", "text": text}]);
    upstream::response(id, json!({"resultType": "complete", "content": content}))
}

fn not_found(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}})
}
