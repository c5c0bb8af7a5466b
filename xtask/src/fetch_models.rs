//! `cargo xtask fetch-models`.
/// Arguments of `fetch-models`.
#[derive(clap::Args)]
pub struct Args {}
/// Runs the command.
pub fn run(_: &Args) -> anyhow::Result<()> { Ok(()) }
