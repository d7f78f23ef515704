//! `collimate rl`: training and playing agents, and looking at environments.

mod agents;
mod eval;
mod gym;
mod off_policy;
mod on_policy;
mod record;
mod tabular;
mod tokens;
mod trace;
mod train;

use super::keyed::KeyedArgs;
use crate::Result;

pub(super) use tokens::TOKENS;
pub(super) use train::TRAIN;

/// Classical reinforcement learning on Gymnasium's tasks
#[derive(Debug, clap::Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Rl {
    /// Train an agent in an environment
    Train(KeyedArgs<train::Train>),
    /// Play the policy of a run, or of several, and print the returns as JSON
    Eval(eval::Args),
    /// Play a policy, or chance, and write the transitions to a file that `cql` and `iql` learn from
    Record(record::Args),
    /// Replay actions in an environment and print what it answers, one JSON object a line
    Trace(trace::TraceArgs),
    /// List the native environments
    Envs(trace::EnvsArgs),
    /// Compare methods on a token problem whose optimum is known exactly
    Tokens(KeyedArgs<tokens::Tokens>),
}

/// Runs `collimate rl`
pub fn run(command: Rl) -> Result<()> {
    match command {
        Rl::Train(args) => args.run(),
        Rl::Eval(args) => eval::run(&args),
        Rl::Record(args) => record::run(&args),
        Rl::Trace(args) => trace::trace(&args),
        Rl::Envs(args) => trace::envs(&args),
        Rl::Tokens(args) => args.run(),
    }
}
