//! What one request shows by itself.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_status_and_costs_nothing_more() {
    let config = HttpEdgeConfig {
        max_message_size: 100,
        ..HttpEdgeConfig::default()
    };
    let running = run(config, always_json);
    let mut client = running.client();
    let big = format!("{}\n{}", PING, " ".repeat(200));
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\n{JSON_HEADERS}Transfer-Encoding: chunked\r\n\r\nc8\r\n{}\r\n0\r\n\r\n",
        " ".repeat(200)
    );
    let get = |headers: &str| format!("GET /mcp HTTP/1.1\r\n{headers}\r\n");
    for (request, status, says) in [
        (
            post(
                &format!("Origin: http://evil.example\r\n{JSON_HEADERS}"),
                PING,
            ),
            403,
            "--allow-origin",
        ),
        (
            post(
                &JSON_HEADERS.replace("localhost:8080", "evil.example"),
                PING,
            ),
            421,
            "--allow-host",
        ),
        (
            post(JSON_HEADERS, PING).replace("/mcp", "/other"),
            404,
            "/mcp",
        ),
        (post(JSON_HEADERS, PING).replace("POST", "PUT"), 405, "POST"),
        (
            post(
                &JSON_HEADERS.replace("application/json\r", "text/plain\r"),
                PING,
            ),
            415,
            "application/json",
        ),
        (
            post(&JSON_HEADERS.replace(", text/event-stream", ""), PING),
            406,
            "text/event-stream",
        ),
        (
            post(&JSON_HEADERS.replace("application/json, ", ""), PING),
            406,
            "application/json",
        ),
        (
            get("Host: localhost\r\nAccept: application/json\r\n"),
            406,
            "text/event-stream",
        ),
        (post(JSON_HEADERS, &big), 413, "--max-message-size"),
        (chunked, 413, "--max-message-size"),
        (post(JSON_HEADERS, "{"), 400, "-32700"),
        (post(JSON_HEADERS, "{\"jsonrpc\":\"2.0\"}"), 400, "-32600"),
        (post(JSON_HEADERS, "[]"), 400, "-32600"),
        (post(JSON_HEADERS, PING), 200, "ok"),
        (
            post(
                &JSON_HEADERS.replace("application/json, text/event-stream", "*/*"),
                PING,
            ),
            200,
            "ok",
        ),
    ] {
        // One connection for all of them: a refusal does not cost it. Head and body come apart.
        let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
        client.send(head).await;
        sleep(Duration::from_millis(5)).await;
        client.send(body).await;
        let (head, body) = client.response().await;
        let expected = format!("http/1.1 {status} ");
        assert!(head.starts_with(&expected), "{request:?}: {head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(body.contains(says), "{request:?}: {body}");
    }
    let refused = running.metrics.render();
    assert!(
        refused.contains(r#"rejections_total{status="413"} 2"#),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_offered_names_those_that_are() {
    let running = run(HttpEdgeConfig::default(), always_json);
    let mut client = running.client();
    client
        .send("PATCH /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let (head, _) = client.response().await;
    assert!(head.contains("allow: get, post, delete, options"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn header_sections_are_bounded() {
    let running = run(HttpEdgeConfig::default(), always_json);
    let mut client = running.client();
    let padding = "x".repeat(66_000);
    client
        .send(post(&format!("{JSON_HEADERS}X-Big: {padding}\r\n"), PING))
        .await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 431 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_refused_request_may_still_be_on_its_way() {
    let config = HttpEdgeConfig {
        max_message_size: 1 << 20,
        ..HttpEdgeConfig::default()
    };
    let running = run(config, always_json);
    let mut client = running.client();
    let body = " ".repeat((1 << 20) + 1);
    let request = post(JSON_HEADERS, &body);
    // Larger than the pipe: this only ends if somebody reads it.
    client.send(request).await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 413 "), "{head}");
    client.send(post(JSON_HEADERS, PING)).await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_100_continue_gets_the_refusal_instead() {
    let config = HttpEdgeConfig {
        max_message_size: 10,
        ..HttpEdgeConfig::default()
    };
    let running = run(config, always_json);
    let mut client = running.client();
    let head = format!(
        "POST /mcp HTTP/1.1\r\n{JSON_HEADERS}Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    );
    client.send(head).await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 413 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn browsers_of_allowed_origins_are_answered() {
    let running = run(HttpEdgeConfig::default(), always_json);
    let mut client = running.client();
    let origin = "Origin: http://localhost:5173\r\n";
    client
        .send(format!(
            "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n{origin}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,mcp-session-id\r\n\r\n"
        ))
        .await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 204 "), "{head}");
    for field in [
        "access-control-allow-origin: http://localhost:5173\r\n",
        "access-control-allow-methods: get, post, delete, options\r\n",
        "access-control-allow-headers: content-type,mcp-session-id\r\n",
        "access-control-max-age: ",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    client
        .send(post(&format!("{origin}{JSON_HEADERS}"), PING))
        .await;
    let (head, _) = client.response().await;
    for field in [
        "access-control-allow-origin: http://localhost:5173\r\n",
        "access-control-expose-headers: mcp-session-id, www-authenticate\r\n",
        "vary: origin\r\n",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_2_is_understood() {
    let running = run(HttpEdgeConfig::default(), always_json);
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    running.connect.send(theirs).unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(ours))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = |host: &str| {
        Request::post(format!("http://{host}/mcp"))
            .header("content-type", "application/json")
            .header("accept", "*/*")
            .body(http_body_util::Full::new(Bytes::from(PING)))
            .unwrap()
    };
    let response = sender.send_request(request("localhost")).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"ok\":1}");
    let response = sender.send_request(request("evil.example")).await.unwrap();
    assert_eq!(response.status(), 421);
}
