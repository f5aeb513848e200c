//! Restarts: the decision by cases, and whole rollouts with a controller that does what it likes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::span::Span;

const OLD: &str = "old";
const NEW: &str = "new";

fn at(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

fn noon() -> Timestamp {
    at("12:00:00")
}

fn workload(name: &str) -> Workload {
    Workload { kind: WorkloadKind::Deployment, name: name.parse().unwrap() }
}

fn pod(name: &str, checksum: Option<&str>, is_ready: bool) -> Pod {
    Pod { name: name.parse().unwrap(), checksum: checksum.map(str::to_owned), is_ready }
}

fn seen(checksum: Option<&str>, progress: Progress, pods: Vec<Pod>) -> Option<Seen> {
    Some(Seen { checksum: checksum.map(str::to_owned), restarted: Vec::new(), progress, pods })
}

fn settled(name: &str, checksum: Option<&str>) -> Sighting {
    (workload(name), seen(checksum, Progress::Settled, vec![pod(&format!("{name}-1"), checksum, true)]))
}

fn rolling(name: &str) -> Sighting {
    let pods = vec![pod(&format!("{name}-1"), Some(OLD), true), pod(&format!("{name}-2"), Some(NEW), false)];
    (workload(name), seen(Some(NEW), Progress::Rolling, pods))
}

fn restarts(batch: usize, per_hour: u32) -> Restarts {
    Restarts { workloads: Vec::new(), windows: Vec::new(), batch, per_hour }
}

#[test]
fn all_pods_of_the_new_template_ready_is_done() {
    assert_eq!(decide(&restarts(1, 6), &[settled("a", Some(NEW)), settled("b", Some(NEW))], NEW, noon()), Decision::Done);
    let scaled_down = (workload("a"), seen(Some(NEW), Progress::Settled, Vec::new()));
    assert_eq!(decide(&restarts(1, 6), &[scaled_down], NEW, noon()), Decision::Done, "no pod holds anything");
}

#[test]
fn a_pod_that_is_old_or_not_ready_keeps_it_from_being_done() {
    for (checksum, is_ready) in [(Some(OLD), true), (None, true), (Some(NEW), false)] {
        let pods = vec![pod("a-1", Some(NEW), true), pod("a-2", checksum, is_ready)];
        let sighting = (workload("a"), seen(Some(NEW), Progress::Settled, pods));
        let decision = decide(&restarts(1, 6), &[sighting], NEW, noon());
        assert_eq!(decision, Decision::wait(Waiting::Rolling(workload("a"))), "{checksum:?} {is_ready}");
    }
}

#[test]
fn a_workload_is_restarted_once_for_one_checksum() {
    let all = [settled("a", Some(OLD)), settled("b", None)];
    assert_eq!(decide(&restarts(2, 6), &all, NEW, noon()), Decision::Restart(vec![workload("a"), workload("b")]));
    assert_eq!(decide(&restarts(2, 6), &all, OLD, noon()), Decision::Restart(vec![workload("b")]), "`a` has it already");
    assert_eq!(decide(&restarts(2, 6), &[rolling("a"), rolling("b")], NEW, noon()), Decision::wait(Waiting::Rolling(workload("a"))));
}

#[test]
fn a_batch_is_the_most_that_roll_at_a_time() {
    let all = [rolling("a"), settled("b", Some(OLD)), settled("c", Some(OLD))];
    assert_eq!(decide(&restarts(1, 6), &all, NEW, noon()), Decision::wait(Waiting::Rolling(workload("a"))));
    assert_eq!(decide(&restarts(2, 6), &all, NEW, noon()), Decision::Restart(vec![workload("b")]));
    assert_eq!(decide(&restarts(9, 6), &all, NEW, noon()), Decision::Restart(vec![workload("b"), workload("c")]));
}

#[test]
fn a_failed_rollout_stops_the_next_and_only_those_of_its_own_checksum() {
    let failed = |checksum| (workload("a"), seen(Some(checksum), Progress::Failed, vec![pod("a-2", Some(checksum), false)]));
    let all = [failed(NEW), settled("b", Some(OLD))];
    assert_eq!(decide(&restarts(2, 6), &all, NEW, noon()), Decision::wait(Waiting::Failed(workload("a"))));
    let all = [failed(OLD), settled("b", Some(OLD))];
    let both = Decision::Restart(vec![workload("a"), workload("b")]);
    assert_eq!(decide(&restarts(2, 6), &all, NEW, noon()), both, "a newer value may be what mends it");
}

#[test]
fn a_workload_that_is_not_there_is_never_done_and_holds_up_nobody() {
    let absent = (workload("typo"), None);
    let all = [absent.clone(), settled("b", Some(OLD))];
    assert_eq!(decide(&restarts(1, 6), &all, NEW, noon()), Decision::Restart(vec![workload("b")]));
    let all = [absent, settled("b", Some(NEW))];
    assert_eq!(decide(&restarts(1, 6), &all, NEW, noon()), Decision::wait(Waiting::Absent(workload("typo"))));
}

#[test]
fn a_paused_rollout_is_named() {
    let paused = (workload("a"), seen(Some(NEW), Progress::Paused, vec![pod("a-1", Some(OLD), true)]));
    assert_eq!(decide(&restarts(1, 6), &[paused], NEW, noon()), Decision::wait(Waiting::Paused(workload("a"))));
}

#[test]
fn restarts_begin_in_a_window_and_go_on_after_it() {
    let window = Window::new("0 9 * * *", "UTC", Span::from_secs(3_600), noon()).unwrap();
    let windowed = Restarts { windows: vec![window], ..restarts(1, 6) };
    let tomorrow = "2026-11-24T09:00:00Z".parse().unwrap();
    let all = [settled("a", Some(OLD))];
    assert_eq!(decide(&windowed, &all, NEW, noon()), Decision::Wait { reason: Waiting::Window, until: Some(tomorrow) });
    assert_eq!(decide(&windowed, &all, NEW, at("09:59:59")), Decision::Restart(vec![workload("a")]));
    assert_eq!(decide(&windowed, &[settled("a", Some(NEW))], NEW, noon()), Decision::Done, "what is done needs no window");
    assert_eq!(decide(&windowed, &[rolling("a")], NEW, noon()), Decision::wait(Waiting::Rolling(workload("a"))));
}

#[test]
fn the_cap_counts_all_restarts_of_the_last_hour() {
    let with = |times: &[&str]| {
        let mut all = vec![settled("a", Some(OLD)), settled("b", Some(OLD))];
        for (index, time) in times.iter().enumerate() {
            all[index % 2].1.as_mut().unwrap().restarted.push(at(time));
        }
        decide(&restarts(2, 3), &all, NEW, noon())
    };
    let (one, both) = (Decision::Restart(vec![workload("a")]), Decision::Restart(vec![workload("a"), workload("b")]));
    let until = |time| Decision::Wait { reason: Waiting::Cap, until: Some(at(time)) };
    assert_eq!(with(&["11:10:00", "11:00:00", "10:00:00"]), both, "an hour old counts no more");
    assert_eq!(with(&["11:10:00", "11:50:00"]), one);
    assert_eq!(with(&["11:50:00", "11:10:00", "11:20:00"]), until("12:10:00"));
    assert_eq!(with(&["11:50:00", "11:10:00", "11:20:00", "11:30:00"]), until("12:20:00"), "the cap was made smaller");
    assert_eq!(with(&["12:10:00", "11:10:00", "11:20:00"]), until("12:10:00"), "a clock that is a little behind");
    assert_eq!(with(&["23:00:00", "22:00:00", "21:00:00"]), both, "no time of ours");
}

#[test]
fn stragglers_are_the_pods_that_may_have_the_old_value() {
    let all = [rolling("b"), settled("a", None), settled("c", Some(NEW)), (workload("d"), None)];
    let names: Vec<String> = stragglers(&all, NEW).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a-1", "b-1"], "and not `b-2`, which isn't Ready yet and has the new value");
}

#[test]
fn what_a_person_reads_names_the_workload() {
    assert_eq!(Waiting::Rolling(workload("api")).to_string(), "deployment/api rolls");
    let failed = Waiting::Failed(Workload { kind: WorkloadKind::StatefulSet, name: "db".parse().unwrap() }).to_string();
    assert!(failed.starts_with("the rollout of statefulset/db failed"), "{failed}");
}

/// The checksum of its template, that of its pod, and when it was restarted.
type Rolled = (Option<String>, Option<String>, Vec<Timestamp>);

/// A controller in small: one pod per workload; each step one of them moves.
#[derive(Debug, Default, Clone)]
struct Cluster {
    workloads: BTreeMap<usize, Rolled>,
}

impl Cluster {
    fn look(&self) -> Vec<Sighting> {
        let sight = |(index, (template, running, restarted)): (&usize, &Rolled)| {
            let progress = if template == running { Progress::Settled } else { Progress::Rolling };
            let pods = vec![pod(&format!("w{index}-pod"), running.as_deref(), true)];
            (workload(&format!("w{index}")), Some(Seen { checksum: template.clone(), restarted: restarted.clone(), progress, pods }))
        };
        self.workloads.iter().map(sight).collect()
    }
}

proptest! {
    /// Whatever the controller does and whenever we look: batch and cap hold, no workload restarts twice for one checksum, and once
    /// the controller has done its part all is done.
    #[test]
    fn batch_and_cap_hold_over_whole_rollouts(count in 1usize..7, batch in 1usize..4, per_hour in 1u32..5, moves in prop::collection::vec((0usize..7, 1i64..1_500), 1..40)) {
        let how = restarts(batch, per_hour);
        let mut cluster = Cluster { workloads: (0..count).map(|index| (index, (None, None, Vec::new()))).collect() };
        let mut now = noon();
        let mut begun: Vec<Timestamp> = Vec::new();
        let settling = std::iter::repeat_n((0, 3_600), 4 * count * count);
        let mut ended = false;
        for (step, (which, seconds)) in moves.into_iter().chain(settling).enumerate() {
            match decide(&how, &cluster.look(), NEW, now) {
                Decision::Done => { ended = true; break; }
                Decision::Wait { .. } => {}
                Decision::Restart(chosen) => {
                    prop_assert!(!chosen.is_empty());
                    for name in chosen {
                        let index: usize = name.name.as_str()[1..].parse().unwrap();
                        let (template, _, restarted) = cluster.workloads.get_mut(&index).unwrap();
                        prop_assert_ne!(template.as_deref(), Some(NEW), "restarted twice");
                        *template = Some(NEW.to_owned());
                        restarted.push(now);
                        begun.push(now);
                    }
                }
            }
            let under_way = cluster.workloads.values().filter(|(template, running, _)| template != running).count();
            prop_assert!(under_way <= batch);
            prop_assert!(recent(&begun, now).len() <= per_hour as usize);
            let chosen = if which < count { which } else { step % count };
            for index in [chosen, step % count] {
                let (template, running, _) = cluster.workloads.get_mut(&index).unwrap();
                *running = template.clone();
            }
            now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        }
        prop_assert!(ended, "{:?}", cluster);
        prop_assert!(stragglers(&cluster.look(), NEW).is_empty());
        prop_assert_eq!(begun.len(), count);
    }
}
