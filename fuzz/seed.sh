#!/bin/sh
# Fills fuzz/corpus from the reference bytes in tests/golden.
set -eu
cd "$(dirname "$0")"
golden=../tests/golden
mkdir -p corpus/frame corpus/header corpus/record
for file in "$golden"/*_json.hex "$golden"/*_rocketmq.hex; do
    name=$(basename "$file" .hex)
    xxd -r -p "$file" > "corpus/frame/$name"
    # The codec byte (offset 4) stays as the picker, the rest of the prefix goes.
    { tail -c +5 "corpus/frame/$name" | head -c 1; tail -c +9 "corpus/frame/$name"; } \
        > "corpus/header/$name"
done
for file in "$golden"/*.json; do
    { printf '\0'; cat "$file"; } > "corpus/header/$(basename "$file")"
done
for file in "$golden"/record_*.hex "$golden"/batch.hex; do
    xxd -r -p "$file" > "corpus/record/$(basename "$file" .hex)"
done
