//! What reading a message costs: it is paid for every message in either direction.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Message, RequestId};

const CALL: &str = r#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"get_weather","arguments":{"location":"Seattle, WA","units":"metric","days":3,"fields":["temperature","wind","humidity"]},"_meta":{"progressToken":"b1f0a5c2","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#;

fn benches(criterion: &mut Criterion) {
    let call = Bytes::from_static(CALL.as_bytes());
    let large = format!(
        r#"{{"jsonrpc":"2.0","id":17,"result":{{"content":[{{"type":"text","text":"{}"}}]}}}}"#,
        "A line of text that a tool returned.\\n".repeat(28_000)
    );
    let large = Bytes::from(large);

    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::Bytes(call.len() as u64));
    group.bench_function("parse a call", |b| {
        b.iter(|| Message::parse(black_box(call.clone())))
    });
    let message = Message::parse(call.clone());
    if let Ok(message) = &message {
        group.bench_function("find the progress token", |b| {
            b.iter(|| inspect::requested_progress_token(black_box(message)))
        });
        let id = RequestId::Integer(123_456);
        group.bench_function("replace the id", |b| {
            b.iter(|| black_box(message).with_id(&id))
        });
    }
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("parse a result of 1 MiB", |b| {
        b.iter(|| Message::parse(black_box(large.clone())))
    });
    group.finish();
}

criterion_group!(message, benches);
criterion_main!(message);
