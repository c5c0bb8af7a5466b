//! Benches of whole archives on the fixtures; those of single crates stand beside their crates. Nothing to use.
