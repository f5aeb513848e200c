//! Many files, on all cores: they become trees side by side, a few ahead of what is judged, and are judged in their order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::Source;
use super::problem::{Problem, Sink};
use super::tree::{Node, documents};

/// In bytes: less is read sooner than threads are started.
const WORTH_IT: usize = 1 << 20;
const THREADS_MAX: usize = 8;

/// The documents of one file, and what was wrong with them.
type Tree = (Vec<Node>, Vec<Problem>);

/// Gives the documents of each file, in the order of the files. Memory stays flat: each thread has one file ahead.
pub(super) fn each(sources: &[&Source], sink: &Sink<'_>, mut judge: impl FnMut(usize, Vec<Node>)) {
    let size: usize = sources.iter().map(|source| source.text.len()).sum();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(sources.len());
    if size < WORTH_IT || threads < 2 {
        for (index, source) in sources.iter().enumerate() {
            judge(index, documents(index, &source.text, sink));
        }
        return;
    }
    // A thread that panics makes the scope panic: no file is passed over.
    thread::scope(|scope| {
        let trees: Vec<Receiver<Tree>> = (0..threads)
            .map(|first| {
                let (sender, receiver) = sync_channel(0);
                scope.spawn(move || read_every(sources, first, threads, &sender));
                receiver
            })
            .collect();
        for index in 0..sources.len() {
            let Ok((nodes, problems)) = trees[index % threads].recv() else { return };
            sink.take_over(problems);
            judge(index, nodes);
        }
    });
}

fn read_every(sources: &[&Source], first: usize, step: usize, trees: &SyncSender<Tree>) {
    for index in (first..sources.len()).step_by(step) {
        let sink = Sink::new(sources.iter().copied());
        let nodes = documents(index, &sources[index].text, &sink);
        if trees.send((nodes, sink.into_reported())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_judged_in_their_order_and_all_problems_come_out() {
        let sources: Vec<Source> = (0..9)
            .map(|number| {
                let filler = format!("# {}\n", "-".repeat(98)).repeat(2 * WORTH_IT / 9 / 100);
                let broken = if number % 2 == 1 { "---\nb: [\n" } else { "" };
                Source { file: format!("{number}.yaml"), text: format!("{filler}a: {number}\n{broken}") }
            })
            .collect();
        let all: Vec<&Source> = sources.iter().collect();
        let sink = Sink::new(&sources);
        let mut judged = Vec::new();
        each(&all, &sink, |index, nodes| judged.push((index, nodes.len())));
        assert_eq!(judged, (0..9).map(|index| (index, 1)).collect::<Vec<_>>());
        let problems = sink.finish().unwrap_err();
        let files: Vec<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
        assert_eq!(files, ["1.yaml", "3.yaml", "5.yaml", "7.yaml"]);
    }
}
