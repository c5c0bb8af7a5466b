//! Developer commands of this repository: `cargo xtask COMMAND`. One module per command.

use clap::{Parser, Subcommand};

mod ablation;
mod bench_peers;
mod build_kernels;
mod fetch_models;
mod gpu_bundle;
mod make_fixtures;
mod planes;
mod roundtrip_check;
mod tensors;
mod test_python;
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
    /// Show what each step of the encoder gains, as a table of whole-file ratios.
    Ablation(ablation::Args),
    /// Compile kernels/*.cu to the PTX that crates/wcodec-kernels holds, or check that it is current.
    BuildKernels(build_kernels::Args),
    /// Gather test programs, benches and fixtures in a folder that runs on a GPU machine without a toolchain.
    GpuBundle(gpu_bundle::Args),
    /// Build the real models used by tests and benches under target/models/.
    FetchModels(fetch_models::Args),
    /// Measure wcodec beside other lossless codecs, on one thread.
    BenchPeers(bench_peers::Args),
    /// Cut the slices of real models under fixtures/ from target/models/, or check the ones that are there.
    MakeFixtures(make_fixtures::Args),
    /// Measure what the fields that are stored raw would take by the frequencies of their values.
    Planes(planes::Args),
    /// Compress and restore awkward, random and real tensors in every way, and compare every bit.
    RoundtripCheck(roundtrip_check::Args),
    /// Build the Python package and run its tests, in an environment of its own under target/.
    TestPython(test_python::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Ablation(args) => ablation::run(&args),
        Command::BuildKernels(args) => build_kernels::run(&args),
        Command::GpuBundle(args) => gpu_bundle::run(&args),
        Command::FetchModels(args) => fetch_models::run(&args),
        Command::BenchPeers(args) => bench_peers::run(&args),
        Command::MakeFixtures(args) => make_fixtures::run(&args),
        Command::Planes(args) => planes::run(&args),
        Command::RoundtripCheck(args) => roundtrip_check::run(&args),
        Command::TestPython(args) => test_python::run(&args),
    }
}
