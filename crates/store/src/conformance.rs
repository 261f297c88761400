//! What every store must do, as a suite that each store's crate runs on itself:
//!
//! ```ignore
//! rota_store::conformance!(crate::start);
//! ```
//!
//! `start` is a `fn() -> impl Fn(Clock) -> Arc<dyn Store>`: it makes a place for data, and what it
//! gives opens a store on that place, as often as it is called.
#![expect(missing_docs, reason = "the name of a case is what it says")]
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite of tests fails by panicking")]

pub mod agents;
pub mod batches;
pub mod claims;
pub mod create;
pub mod cycles;
pub mod dependencies;
pub mod prune;
pub mod reading;
pub mod rehearsals;
pub mod sessions;
pub mod timers;
mod trial;
pub mod workers;

pub use trial::{Trial, drive};

/// Makes a test of each case.
#[macro_export]
macro_rules! conformance {
    ($start:path) => {
        $crate::conformance! { @ $start;
            create {
                a_new_task_is_queued_and_told same_key_same_task a_foreign_id_is_made_once
                an_id_of_another_namespace_tells_nothing an_id_twice_in_one_batch strict_refuses_what_is_missing
                an_offer_is_taken_in_the_same_commit an_offer_of_an_ended_session_is_none
                an_offer_waits_for_nobody born_cancelled
            }
            agents {
                a_task_before_its_agent gone_and_back gone_while_a_dependency_runs gone_while_a_worker_has_it
                generations_and_conditions deleted_and_made_in_one_batch bounds_in_any_order
                bounds_of_a_changed_agent bounds_of_whoever_takes_it
            }
            dependencies {
                before_it_after_it_and_between an_alias_is_the_newest_at_creation
                a_missing_alias_is_the_first_that_comes on_failure_policies a_chain_falls
                what_they_brought_is_sent_along another_namespace_does_not_count
            }
            cycles {
                of_one of_two of_three of_fifty by_alias two_closed_at_once whoever_waits_for_a_cycle_fails
                none_in_a_diamond none_left_by_those_who_gave_up
            }
            claims {
                best_rank_first_over_all_routes never_two_holders of_tasks_made_in_the_same_batch
                only_by_the_newest_session never_across_namespaces priority_counts_at_once
                a_task_with_a_worker_of_its_own
            }
            workers {
                a_whole_life stale_and_unknown_fences a_late_result_is_noted_once secrets_come_with_each_attempt
                a_failed_attempt_is_tried_again cancelled_while_it_runs
            }
            sessions {
                epochs_grow what_is_named_goes_on what_is_not_named_is_lost a_name_that_was_taken_is_not_taken_back under_an_older_fence
                another_process_in_its_place a_superseded_end_frees_nothing an_end_frees_what_it_had
                opened_anew_the_store_still_knows
            }
            timers {
                not_before queue_timeout a_retry_comes_due not_taken_in_time total_time the_next_time_is_told
                no_more_than_asked
            }
            prune {
                only_what_ended_before oldest_first_and_no_more keys_stay_and_the_rest_goes ids_from_outside_go_too
                revisions_never_repeat keys_go_after_their_tasks sessions_of_those_who_left
                routes_that_nothing_waits_on a_route_of_the_same_batch
            }
            reading {
                filters pages a_log_from_anywhere the_log_of_all_tasks how_many_go_before what_is_counted
                a_snapshot_is_a_fresh_start
            }
            rehearsals {
                new_ones_and_known_ones what_is_refused a_cycle_is_seen agents_and_updates nothing_is_left
            }
            batches {
                each_is_answered_by_itself a_life_in_one_batch an_empty_batch commits_come_in_order
                no_reader_of_commits_holds_nobody_up
            }
        }
    };
    (@ $start:path; $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                $crate::conformance::drive($start(), $crate::conformance::$group::$case);
            })*
        })*
    };
}
