//! Decoding event streams: this project's decoder beside others, on the same chunks.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadowcat_benches::{DECODERS, chunks, corpora};

fn benches(criterion: &mut Criterion) {
    for corpus in corpora() {
        for size in [16 * 1024, 1400] {
            let chunks = chunks(&corpus.text, size);
            let mut group = criterion.benchmark_group(format!("{} in {size} B", corpus.name));
            group.throughput(Throughput::Bytes(corpus.text.len() as u64));
            for (name, decode) in DECODERS {
                group.bench_with_input(BenchmarkId::from_parameter(name), &chunks, |b, chunks| {
                    b.iter(|| decode(black_box(chunks)));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(decoder, benches);
criterion_main!(decoder);
