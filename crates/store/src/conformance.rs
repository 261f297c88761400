//! Conformance suite for stores. Each store's crate runs it on itself:
//!
//! ```ignore
//! rota_store::conformance!(crate::start);
//! ```
//!
//! `start` is a `fn() -> impl Fn(Clock) -> Arc<dyn Store>`: it creates a location for data, and the returned function
//! opens a store on it, any number of times.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite of tests fails by panicking")]

pub mod agents;
pub mod attempts;
pub mod batches;
pub mod budget_isolation;
pub mod budget_turns;
pub mod budget_waits;
pub mod budgets;
pub mod claims;
pub mod create;
pub mod cycles;
pub mod dependencies;
pub mod documents;
pub mod dry_run;
pub mod follow_ups;
mod harness;
pub mod prune;
pub mod quota;
pub mod quota_probes;
pub mod reading;
pub mod released;
pub mod search;
pub mod sessions;
pub mod threads;
pub mod timers;
pub mod workers;
pub mod workflow_add;
pub mod workflow_budgets;
pub mod workflow_ends;
pub mod workflow_groups;
pub mod workflow_nested;
pub mod workflow_random;
pub mod workflow_reserves;
pub mod workflow_resolved;
mod workflow_run;
pub mod workflow_visits;
pub mod workflows;

pub use harness::{Harness, drive};

/// Generates one test per case.
#[macro_export]
macro_rules! conformance {
    ($start:path) => {
        $crate::conformance! { @ $start;
            create {
                new_task_is_queued_and_published same_key_returns_same_task caller_chosen_id_is_created_once
                each_namespace_has_its_own_ids duplicate_id_in_one_batch strict_task_rejects_missing_objects
                offer_is_assigned_in_same_commit offer_of_ended_session_is_ignored
                offer_does_not_wait task_created_cancelled_ends
            }
            agents {
                task_waits_for_its_agent deleted_agent_holds_and_releases_tasks agent_deleted_while_dependency_runs agent_deleted_while_task_runs
                generations_grow_and_conditions_hold agent_recreated_in_one_batch limits_apply_in_any_order
                changed_agent_updates_limits assigned_worker_brings_agent_limits
            }
            dependencies {
                dependencies_in_any_creation_order alias_resolves_to_newest_at_creation
                missing_alias_resolves_to_first_created failed_dependency_applies_its_policy failure_propagates_along_a_chain
                dependency_results_are_dispatched children_results_are_dispatched result_reaches_dependent_of_same_batch results_of_one_commit_are_bounded results_of_one_assignment_are_bounded other_namespaces_are_no_dependencies
            }
            cycles {
                cycle_of_one cycle_of_two cycle_of_three cycle_of_fifty large_cycle_fails_in_pieces cycle_by_alias members_continue_after_a_broken_cycle search_survives_a_restart dependents_of_a_cycle_fail
                diamond_is_no_cycle cancelled_tasks_form_no_cycle
            }
            claims {
                best_rank_is_first_over_routes task_is_claimed_once tasks_of_same_batch_are_claimable
                only_newest_session_claims claims_never_cross_namespaces priority_update_applies_immediately
                isolated_task_has_its_own_route empty_claim_reports_queue worker_is_passed_over_by_tasks_that_avoid_it any_of_several_agents_claims
            }
            workers {
                attempt_runs_to_success stale_and_unknown_fences_change_nothing late_result_is_noted_once secrets_are_dispatched_with_each_attempt sealed_secrets_are_replaced_until_the_end
                failed_attempt_is_retried running_task_is_cancelled
            }
            attempts {
                success_is_reported_once usage_is_reported_as_difference rejected_attempt_never_started
                untaken_attempt_never_started lost_worker_ends_its_attempts cancelled_attempt_is_reported
                retries_are_reported_each attempts_survive_a_reopen reassigned_in_one_batch
                artifacts_are_listed_by_attempt_until_the_prune undelivered_result_is_stored_and_replaced work_of_another_task_is_stored
            }
            sessions {
                epochs_grow_with_each_hello named_attempts_continue unnamed_attempts_are_lost replaced_process_cannot_return lost_epochs_are_not_given_again attempt_with_older_fence_is_lost
                new_process_replaces_the_old superseded_end_releases_nothing session_end_releases_its_tasks
                sessions_survive_a_reopen files_wait_for_the_disk_of_their_worker attempt_that_only_stores_ends_no_worker lost_attempt_returns_after_a_reopen worker_of_another_agent_resumes_nothing
                names_stay_with_their_agent drains_end_with_the_session_of_their_process
            }
            timers {
                start_time_delays_a_task queue_timeout_fails_a_task queue_timeout_counts_no_outage retry_becomes_due unaccepted_assignment_is_requeued assignment_waits_for_the_lease_of_its_worker total_timeout_fails_a_task
                start_judges_no_absent_worker clock_jump_moves_deadlines_on_workers clock_jump_takes_several_commits next_deadline_is_published tick_respects_its_limit
            }
            follow_ups {
                wide_fan_out_takes_several_commits failing_graph_takes_several_commits follow_ups_survive_a_restart
                many_waiters_find_their_task changed_agent_reaches_a_long_queue deleted_agent_leaves_no_ready_task
                follow_ups_continue_without_calls snapshot_states_which_commits_it_contains
            }
            prune {
                only_tasks_ended_before_are_pruned oldest_are_pruned_first_up_to_limit keys_outlive_their_tasks needed_results_are_not_pruned
                caller_chosen_ids_are_pruned large_logs_end_a_prune large_logs_end_a_tick
                revisions_are_never_reused keys_are_pruned_after_their_tasks ended_sessions_are_pruned
                ended_task_is_removed_unless_needed ended_task_is_removed_after_its_ttl unused_routes_are_pruned route_used_in_same_batch_survives
            }
            quota {
                tasks_wait_until_the_named_reset credentials_do_not_block_one_another
                one_task_probes_a_limit_without_an_end failed_probes_wait_longer
                queue_timeout_counts_no_cool_down lifted_limit_releases_a_long_queue
                queue_timeout_counts_no_wait_of_an_agent queue_timeout_counts_no_wait_that_is_over
            }
            quota_probes {
                one_task_of_an_agent_probes own_key_does_not_use_up_the_probe
                rejected_probe_that_chose_its_model_is_replaced probe_without_a_sign_is_replaced
                endpoint_of_a_task_is_not_the_agents named_reset_is_probed_and_left
                cool_downs_of_a_namespace_are_bounded named_credentials_are_known_besides_reports
            }
            workflow_visits {
                held_finally_step_takes_no_place suspension_ends_with_the_pause
            }
            released {
                slot_is_free_until_the_answer released_attempt_counts_no_more
            }
            threads {
                tasks_of_a_thread_run_one_after_the_other cancelled_tasks_pass_their_place_on last_conversation_is_kept_with_its_thread
            }
            budget_isolation {
                agents_that_isolate_nothing_hide_no_budget
            }
            budget_turns {
                task_of_tomorrow_is_passed_over free_attempts_take_no_budget waiting_attempts_begin_no_turn first_report_counts_the_other_attempts
                late_reports_are_several_turns
            }
            budget_waits {
                raised_budget_continues_what_is_being_stopped lost_attempt_returns_under_a_raised_budget
                stopped_task_is_left_to_another_agent task_without_another_agent_waits
                task_of_agents_without_money_waits dear_task_hides_no_cheaper_one
                attempts_exceed_a_budget_by_one_turn stopped_attempt_continues_with_what_is_left unknown_cost_starts_alone dear_budget_reserves_what_is_left
                suspended_task_takes_no_room unused_room_is_given_again ended_work_reserves_nothing room_is_offered_again_later
                lowered_budget_wakes_nothing wake_up_gives_what_there_is_room_for corrected_books_wake_tasks
            }
            workflows {
                same_workflow_is_created_once graph_is_driven_to_its_end graph_continues_after_each_reopen outdated_answers_change_nothing
                reused_results_are_stored reused_lists_are_removed_with_their_workflow failed_workflows_are_dead_letters_until_they_run_again held_steps_start_when_there_is_room wide_workflow_takes_several_commits
                refused_task_fails_its_step offered_task_of_a_step_is_assigned dry_run_creates_no_workflow
            }
            workflow_groups {
                group_is_held_in_the_order_of_creation steps_share_a_group new_member_replaces_the_others replaced_workflow_finishes_its_finally_steps resumed_member_replaces_no_newer_one paused_workflow_keeps_no_place
                group_with_many_members_is_held_by_all_in_turn groups_continue_after_each_reopen
            }
            workflow_add {
                steps_are_added_to_a_running_workflow added_steps_continue_after_each_reopen added_step_sees_the_end_in_its_commit
            }
            workflow_budgets {
                accepted_steps_wait_for_spent_budgets spent_budget_refuses_new_workflows
            }
            workflow_random {
                graph_determines_the_end_of_a_workflow
            }
            workflow_nested {
                ends_of_nested_workflows_end_their_step nested_workflows_continue_after_each_reopen commands_reach_nested_workflows
                nested_workflows_are_bounded foreign_workflow_is_no_step nested_workflows_are_removed_with_theirs repeated_cancellation_spares_nested_finally_steps
            }
            workflow_ends {
                completed_steps_are_compensated completed_elements_are_compensated compensation_continues_after_each_reopen failed_compensation_ends_the_workflow
                cancelled_workflow_ends_its_tasks deadlines_of_steps_and_workflows_pass late_tick_starts_nothing_before_what_it_needs late_tick_overtakes_no_decision timeout_ends_a_stopping_workflow outages_count_for_no_deadline start_judges_no_workflow_with_absent_workers
                task_of_a_step_is_removed_with_its_workflow ended_workflow_is_pruned_with_its_tasks wide_workflow_is_removed_with_all_rows
            }
            workflow_reserves {
                steps_reserve_of_the_budget_of_their_workflow
            }
            workflow_resolved {
                resolved_compensations_continue resolved_compensation_waits_for_its_group
            }
            documents {
                documents_are_created_replaced_and_deleted stale_versions_change_nothing
                recreated_document_has_another_identity changes_are_published_in_order pages_are_bounded_and_complete
                dry_run_stores_no_document document_and_task_share_a_commit
            }
            budgets {
                books_are_kept_with_the_usage tasks_beyond_a_budget_wait_for_the_next_day namespace_limits_all_its_agents
                reached_limit_stops_running_attempts exhausted_budget_can_refuse_tasks long_queue_waits_in_pieces
            }
            reading {
                list_filters_match list_filters_match_attempts list_pages_are_complete log_reads_from_any_position log_pages_are_bounded_by_bytes feed_has_all_logs bodies_are_read_in_pages ahead_counts_lower_ranks stats_count_pending_and_heads
                snapshot_equals_reopened_state
            }
            search {
                all_words_are_found_newest_first index_changes_from_the_expected_revision_only random_searches_match_a_model
            }
            dry_run {
                new_and_existing_tasks rejections_match cycle_is_detected agents_and_updates_match dry_run_leaves_nothing
            }
            batches {
                commands_have_their_own_replies whole_attempt_in_one_batch empty_batch_has_no_replies commits_are_published_in_order
                missing_commit_reader_blocks_nothing
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
