//! Developer commands of this repository: `cargo xtask COMMAND`. One module per command.

use clap::{Parser, Subcommand};

mod fetch_models;
mod tensors;
mod workspace;

/// Developer commands of the wcodec repository.
#[derive(Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the real models used by tests and benches under target/models/.
    FetchModels(fetch_models::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::FetchModels(args) => fetch_models::run(&args),
    }
}
