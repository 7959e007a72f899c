//! Sends rounds of packets through three switches, so that callgrind can count the instructions.
//! Usage: `icount ROUNDS SIZE`. The program measures no time.

use std::process::ExitCode;

use strowger_bench_chain::chain::Chain;
use strowger_frame::BURST_MAX;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let (Some(Ok(rounds)), Some(Ok(size))) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: icount ROUNDS SIZE");
        return ExitCode::from(2);
    };
    let mut chain = match Chain::new(size, BURST_MAX) {
        Ok(chain) => chain,
        Err(failure) => {
            eprintln!("icount: {failure}");
            return ExitCode::FAILURE;
        }
    };
    for _ in 0..rounds {
        chain.round();
    }
    ExitCode::SUCCESS
}
