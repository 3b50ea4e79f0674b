use bytes::Bytes;

use super::*;

fn message(json: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap()
}

fn request(id: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#
    ))
}

fn with_token(id: &str, token: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    ))
}

fn listen(id: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen"}}"#
    ))
}

fn response(id: &str) -> Message {
    message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#))
}

fn progress(token: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
    ))
}

fn cancelled(id: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    ))
}

fn log() -> Message {
    message(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#)
}

fn ask(id: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#
    ))
}

fn tagged(subscription: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{subscription}}}}}}}"#
    ))
}

fn to(key: Key, message: Message) -> Route {
    Route::Exchange {
        key,
        message,
        last: false,
    }
}

fn end(key: Key, message: Message) -> Route {
    Route::Exchange {
        key,
        message,
        last: true,
    }
}

fn begin(table: &mut Table, request: &Message) -> Key {
    table.begin(request).unwrap().0
}

#[test]
fn a_response_ends_the_exchange_that_asked() {
    let mut table = Table::new(Clients::One);
    let (first, sent) = table.begin(&request("1")).unwrap();
    assert_eq!(sent, request("1"));
    let second = begin(&mut table, &request("\"1\""));
    assert_eq!(
        table.route(response("\"1\"")),
        end(second, response("\"1\""))
    );
    let error = message(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#);
    assert_eq!(table.route(error.clone()), end(first, error.clone()));
    assert_eq!(table.route(error), Route::Stray);
    let nameless = message(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#);
    assert_eq!(table.route(nameless), Route::Stray);
}

#[test]
fn an_id_in_use_and_what_is_no_request_are_refused() {
    let mut table = Table::new(Clients::One);
    begin(&mut table, &request("1"));
    assert_eq!(table.begin(&request("1.0")), None);
    assert_eq!(table.begin(&log()), None);
    table.route(response("1"));
    assert!(table.begin(&request("1")).is_some());
}

#[test]
fn progress_goes_by_its_token() {
    let mut table = Table::new(Clients::One);
    table.set_standalone_open(true);
    let first = begin(&mut table, &with_token("1", "\"t\""));
    begin(&mut table, &request("2"));
    assert_eq!(table.route(progress("\"t\"")), to(first, progress("\"t\"")));
    // A task's progress after its request was answered.
    table.route(response("1"));
    assert_eq!(
        table.route(progress("\"t\"")),
        Route::Standalone(progress("\"t\""))
    );
}

#[test]
fn a_token_used_again_belongs_to_the_newer_request() {
    let mut table = Table::new(Clients::One);
    begin(&mut table, &with_token("1", "7"));
    let second = begin(&mut table, &with_token("2", "7"));
    table.route(response("1"));
    assert_eq!(table.route(progress("7")), to(second, progress("7")));
}

#[test]
fn what_names_no_request_goes_to_the_only_one_else_the_standalone_stream_else_the_newest() {
    let mut table = Table::new(Clients::One);
    assert_eq!(table.route(log()), Route::Standalone(log()));
    let first = begin(&mut table, &request("1"));
    table.set_standalone_open(true);
    assert_eq!(table.route(log()), to(first, log()));
    assert_eq!(table.route(ask("1")), to(first, ask("1")));
    let second = begin(&mut table, &request("2"));
    assert_eq!(table.route(log()), Route::Standalone(log()));
    assert_eq!(table.route(ask("2")), Route::Standalone(ask("2")));
    table.set_standalone_open(false);
    assert_eq!(table.route(log()), to(second, log()));
    table.end(second);
    assert_eq!(table.route(log()), to(first, log()));
    table.end(first);
    assert_eq!(table.end(first), None);
    assert_eq!(table.route(log()), Route::Standalone(log()));
}

#[test]
fn a_call_that_its_client_cancelled_gets_nothing_but_what_names_it() {
    let mut table = Table::new(Clients::One);
    let first = begin(&mut table, &with_token("1", "1"));
    table.cancel(&cancelled("2"));
    assert_eq!(table.route(log()), to(first, log()));
    table.cancel(&cancelled("1"));
    assert_eq!(table.route(log()), Route::Standalone(log()));
    assert_eq!(table.route(progress("1")), to(first, progress("1")));
    let second = begin(&mut table, &request("2"));
    table.set_standalone_open(true);
    assert_eq!(table.route(ask("10")), to(second, ask("10")));
    assert_eq!(table.route(response("1")), end(first, response("1")));
}

#[test]
fn a_request_taken_back_is_followed_to_where_it_went() {
    let mut table = Table::new(Clients::One);
    let first = begin(&mut table, &request("1"));
    table.route(ask("10"));
    table.route(ask("11"));
    begin(&mut table, &request("2"));
    let newest = begin(&mut table, &request("3"));
    assert_eq!(table.route(cancelled("10")), to(first, cancelled("10")));
    // The second time it is unknown, like an id that never was.
    assert_eq!(table.route(cancelled("10")), to(newest, cancelled("10")));
    table.end(first);
    assert_eq!(table.route(cancelled("11")), to(newest, cancelled("11")));
    table.set_standalone_open(true);
    table.route(ask("12"));
    table.set_standalone_open(false);
    assert_eq!(
        table.route(cancelled("12")),
        Route::Standalone(cancelled("12"))
    );
}

#[test]
fn only_so_many_requests_of_the_server_are_remembered() {
    let mut table = Table::new(Clients::One);
    table.route(ask("0"));
    for id in 1..=ASKS {
        table.route(ask(&id.to_string()));
    }
    assert_eq!(table.asks.len(), ASKS);
    assert_eq!(table.asks[0].0, RequestId::Integer(1));
}

#[test]
fn many_clients_share_a_pipe_by_numbers_of_ours() {
    let mut table = Table::new(Clients::Many);
    let (first, sent) = table.begin(&with_token("\"a\"", "\"t\"")).unwrap();
    assert_eq!(sent, with_token("1", "1"));
    let (second, sent) = table.begin(&with_token("\"a\"", "\"t\"")).unwrap();
    assert_eq!(sent, with_token("2", "2"));
    let (third, sent) = table.begin(&request("\"a\"")).unwrap();
    assert_eq!(sent, request("3"));
    assert_eq!(table.route(progress("2")), to(second, progress("\"t\"")));
    assert_eq!(table.route(progress("1")), to(first, progress("\"t\"")));
    assert_eq!(table.route(progress("3")), Route::Nobody(progress("3")));
    assert_eq!(table.route(response("2")), end(second, response("\"a\"")));
    assert_eq!(table.route(response("\"a\"")), Route::Stray);
    assert_eq!(table.end(third), Some(RequestId::Integer(3)));
    assert_eq!(table.route(response("3")), Route::Stray);
    let nameless = message(r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}"#);
    assert_eq!(table.route(nameless), Route::Stray);
}

#[test]
fn a_subscription_s_messages_carry_the_client_s_own_id_again() {
    let mut table = Table::new(Clients::Many);
    let first = begin(&mut table, &listen("\"a\""));
    let second = begin(&mut table, &listen("\"a\""));
    assert_eq!(table.route(tagged("1")), to(first, tagged("\"a\"")));
    assert_eq!(table.route(tagged("9")), Route::Nobody(tagged("9")));
    let close = |id: &str, tag: &str| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{tag}}}}}}}"#
        ))
    };
    assert_eq!(
        table.route(close("1", "1")),
        end(first, close("\"a\"", "\"a\""))
    );
    assert_eq!(table.route(cancelled("2")), end(second, cancelled("\"a\"")));
    assert_eq!(table.route(cancelled("2")), Route::Nobody(cancelled("2")));
}

#[test]
fn a_modern_call_is_not_confused_with_a_subscription() {
    let mut table = Table::new(Clients::Many);
    assert_eq!(table.route(log()), Route::Nobody(log()));
    assert_eq!(table.route(ask("1")), Route::Nobody(ask("1")));
    begin(&mut table, &listen("1"));
    assert_eq!(table.route(log()), Route::Nobody(log()));
    let call = begin(&mut table, &request("2"));
    begin(&mut table, &listen("3"));
    assert_eq!(table.route(log()), to(call, log()));
    let newest = begin(&mut table, &request("4"));
    assert_eq!(table.route(log()), to(newest, log()));
}
