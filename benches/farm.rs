//! What the farm does most: merging ledgers, choosing a unit, framing ops.

fn main() {
    divan::main();
}
