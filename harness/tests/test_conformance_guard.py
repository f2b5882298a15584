#
# Licensed to the Apache Software Foundation (ASF) under one or more
# contributor license agreements.  See the NOTICE file distributed with
# this work for additional information regarding copyright ownership.
# The ASF licenses this file to You under the Apache License, Version 2.0
# (the "License"); you may not use this file except in compliance with
# the License.  You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
#
"""No standard case is dropped, replaced or skipped without a reason."""

import importlib
import importlib.util
import pathlib
import sys

import apache_beam as beam
import pytest

from beam_harness.conformance import LookupConformance
from beam_harness.conformance import ReadConformance
from beam_harness.conformance import SinkConformance
from beam_harness.conformance import overrides_case
from beam_harness.conformance import problems_of
from beam_harness.conformance import standard_cases

_HERE = pathlib.Path(__file__).parent
_PACKAGES = _HERE.parents[1] / 'packages'

#: Every case of each suite. Who drops one from a suite drops it here too, where
#: it is seen.
_SINK_CASES = '''
    test_a_bad_record_is_refused_and_its_neighbours_are_written
    test_a_bundle_that_fails_each_time_says_why
    test_a_bundle_that_is_tried_again_leaves_the_same_state
    test_a_credential_that_is_not_there_is_named
    test_a_fault_that_passes_costs_nothing
    test_a_key_that_comes_twice_settles_twice
    test_a_killed_worker_and_a_second_run_leave_the_same_state
    test_a_missing_permission_stops_at_once_and_says_so
    test_a_record_over_the_limit_is_refused_alone
    test_a_refused_record_stops_the_pipeline_unless_told_otherwise
    test_a_service_that_is_not_there_is_named
    test_a_wrong_credential_is_said_before_anything_is_written
    test_all_bundles_of_a_process_share_the_limit
    test_an_element_in_several_windows_is_written_once
    test_an_error_handler_gets_the_failed_records
    test_an_outage_fails_the_bundle_and_dead_letters_nothing
    test_an_outage_makes_dead_letters_if_one_asks_for_it
    test_batches_are_filled_up_to_the_bytes
    test_batches_are_filled_up_to_the_count
    test_construction_touches_no_network_and_no_heavy_module
    test_dead_letters_can_be_written_again
    test_display_data_name_the_target
    test_elements_and_outputs_pass_their_coders
    test_elements_of_every_kind_are_written
    test_elements_of_the_services_own_kinds_are_written
    test_every_standard_case_is_kept
    test_failed_records_that_nobody_reads_are_refused_at_construction
    test_many_bundles_at_a_time
    test_metrics_equal_the_log_of_the_service
    test_no_connection_outlives_the_pipeline
    test_no_elements_make_no_request
    test_no_secret_is_in_errors_and_logs
    test_no_secret_is_in_failed_records
    test_no_secret_is_in_what_a_pipeline_carries
    test_no_trouble_counts_no_trouble
    test_one_bad_row_of_a_block_is_refused_alone
    test_only_what_failed_of_a_request_is_tried_again
    test_outputs_keep_element_window_and_timestamp
    test_outputs_keep_them_when_batched_across_bundles
    test_poison_is_isolated_and_its_neighbours_are_written
    test_records_refused_one_after_the_other_stop_the_pipeline
    test_repeated_bundles_leave_the_same_state
    test_requests_are_in_flight_together_up_to_the_limit
    test_rows_of_a_block_keep_its_window_and_timestamp
    test_ten_thousand_records_under_faults_all_arrive_or_are_refused
    test_the_ledger_accounts_for_every_record_of_every_window
    test_the_services_own_limits_are_kept_without_being_told
    test_the_target_is_in_the_lineage
    test_the_wait_that_the_service_asks_for_is_kept
    test_throttled_requests_are_fewer_at_a_time
    test_what_waits_for_the_written_comes_after_all_of_it
    test_worker_processes_write_the_same
'''.split()

_LOOKUP_CASES = '''
    test_a_bad_question_is_refused_and_its_neighbours_are_joined
    test_a_block_keeps_its_columns_and_the_order_of_its_rows
    test_a_bundle_that_fails_each_time_says_why
    test_a_bundle_that_is_tried_again_gives_each_answer_once
    test_a_cache_keeps_no_more_than_it_may
    test_a_cached_answer_expires
    test_a_cached_answer_is_not_asked_for_again
    test_a_credential_that_is_not_there_is_named
    test_a_fault_that_passes_costs_nothing
    test_a_missing_permission_stops_at_once_and_says_so
    test_a_null_key_is_asked_for_by_nobody
    test_a_refused_question_stops_the_pipeline_unless_told_otherwise
    test_a_service_that_is_not_there_is_named
    test_a_wrong_credential_is_said_before_anything_is_asked
    test_all_bundles_of_a_process_share_the_limit
    test_an_element_in_several_windows_is_joined_once_in_each
    test_an_error_handler_gets_the_failed_records
    test_an_outage_fails_the_bundle_and_is_not_taken_for_an_answer
    test_an_outage_makes_dead_letters_if_one_asks_for_it
    test_bundles_that_run_together_share_their_requests
    test_construction_touches_no_network_and_no_heavy_module
    test_dead_letters_carry_their_element_and_can_be_asked_again
    test_display_data_name_the_target
    test_elements_and_outputs_pass_their_coders
    test_elements_of_every_kind_are_joined
    test_elements_of_the_services_own_kinds_are_joined
    test_equal_keys_of_a_bundle_are_asked_for_once
    test_equal_keys_that_are_refused_are_each_a_failed_record
    test_equal_keys_that_are_tried_again_are_all_answered
    test_every_standard_case_is_kept
    test_failed_records_that_nobody_reads_are_refused_at_construction
    test_hits_and_misses_of_the_cache_are_counted
    test_lookups_chain_like_any_transform
    test_many_bundles_at_a_time
    test_metrics_equal_the_log_of_the_service
    test_no_connection_outlives_the_pipeline
    test_no_elements_make_no_request
    test_no_secret_is_in_errors_and_logs
    test_no_secret_is_in_failed_records
    test_no_secret_is_in_what_a_pipeline_carries
    test_no_trouble_counts_no_trouble
    test_one_bad_row_of_a_block_is_refused_alone
    test_only_what_failed_of_a_request_is_asked_again
    test_outputs_keep_element_window_and_timestamp
    test_outputs_keep_the_pane_of_their_element
    test_outputs_keep_them_when_batched_across_bundles
    test_poison_is_isolated_and_its_neighbours_are_answered
    test_questions_refused_one_after_the_other_stop_the_pipeline
    test_repeated_bundles_give_the_same_answers
    test_requests_are_filled_up_to_the_count
    test_requests_are_in_flight_together_up_to_the_limit
    test_rows_of_a_block_keep_its_window_and_timestamp
    test_that_nothing_was_there_expires_in_its_own_time
    test_the_enrichment_handler_batches_if_one_asks_for_it
    test_the_enrichment_handler_gives_the_same_answers
    test_the_enrichment_handler_keeps_event_times
    test_the_enrichment_handler_says_what_is_wrong
    test_the_enrichment_handler_tries_again_by_itself
    test_the_services_own_limits_are_kept_without_being_told
    test_the_source_is_in_the_lineage
    test_the_wait_that_the_service_asks_for_is_kept
    test_thousands_of_questions_under_faults_are_each_answered_or_refused
    test_what_is_missing_goes_its_own_way_unchanged
    test_what_is_missing_is_a_failed_record_if_one_asks_for_it
    test_what_is_missing_is_joined_with_nulls
    test_what_is_missing_stops_the_pipeline_and_says_how_to_go_on
    test_without_a_cache_a_later_bundle_asks_again
    test_worker_processes_give_the_same_answers
'''.split()

_READ_CASES = '''
    test_a_bundle_that_fails_each_time_says_why
    test_a_bundle_that_fails_in_the_middle_of_a_shard_is_read_again
    test_a_credential_that_is_not_there_is_named
    test_a_fault_that_passes_costs_nothing
    test_a_filter_chooses_records
    test_a_listing_goes_on_where_it_was_interrupted
    test_a_missing_permission_stops_at_once_and_says_so
    test_a_prefix_chooses_records
    test_a_read_with_a_filter_passes_faults_too
    test_a_request_in_several_windows_is_answered_in_each
    test_a_service_that_is_not_there_is_named
    test_a_shard_that_is_named_and_not_there_is_named_again
    test_a_wrong_credential_is_said
    test_all_blocks_have_one_schema
    test_an_empty_source_gives_nothing
    test_an_outage_fails_the_pipeline
    test_columns_narrow_what_is_read
    test_construction_touches_no_network_and_no_heavy_module
    test_display_data_name_the_target
    test_every_standard_case_is_kept
    test_many_bundles_at_a_time
    test_many_pages_of_many_shards_are_read
    test_many_pages_under_faults_give_each_record_once
    test_many_shards_are_read
    test_metrics_equal_the_log_of_the_service
    test_no_connection_outlives_the_pipeline
    test_no_requests_read_nothing
    test_no_secret_is_in_errors_and_logs
    test_no_secret_is_in_what_a_pipeline_carries
    test_one_shard_is_read
    test_only_the_shards_that_are_named_are_read
    test_pages_are_read_to_the_last
    test_records_are_in_the_global_window
    test_records_pass_their_coders
    test_repeated_bundles_give_each_record_once
    test_requests_of_a_pcollection_are_each_answered
    test_rows_and_blocks_hold_the_same
    test_shards_are_read_side_by_side
    test_the_source_is_in_the_lineage
    test_the_wait_that_the_service_asks_for_is_kept
    test_what_is_deleted_after_it_was_listed_is_left_out
    test_what_is_read_can_be_written_as_it_is
    test_worker_processes_read_the_same
'''.split()

_SUITES = {
    SinkConformance: _SINK_CASES,
    LookupConformance: _LOOKUP_CASES,
    ReadConformance: _READ_CASES,
}

#: Which transforms of the packages have to have which suite, by their names.
_ROLES = {
    SinkConformance: ('WriteTo',),
    LookupConformance: ('Lookup', 'Search'),
    ReadConformance: ('ReadFrom',),
}


def _module(path):
  for module in list(sys.modules.values()):
    if getattr(module, '__file__', None) == str(path):
      return module
  spec = importlib.util.spec_from_file_location(
      f'conformance_guard_{path.stem}', path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


def _suites():
  """The conformance classes that pytest collects here, by name."""
  suites = {}
  for path in sorted(_HERE.rglob('test_*.py')):
    if 'Conformance' not in path.read_text(encoding='utf-8'):
      continue
    module = _module(path)
    for name, value in vars(module).items():
      if (name.startswith('Test') and isinstance(value, type)
          and issubclass(value, tuple(_SUITES))):
        suites[f'{path.name}::{name}'] = (module, value)
  return suites


@pytest.mark.parametrize('suite', _SUITES)
def test_a_suite_has_every_standard_case(suite):
  assert sorted(standard_cases(suite)) == _SUITES[suite]


def test_every_suite_here_keeps_every_standard_case():
  suites = _suites()
  assert any('pinecone' in name for name in suites)
  problems = []
  for name, (module, suite) in suites.items():
    problems += [f'{name}: {problem}' for problem in problems_of(suite)]
    if hasattr(module, 'pytestmark'):
      problems.append(f'{name}: the module has marks')
  assert problems == []


@pytest.mark.parametrize('suite', _ROLES)
def test_every_transform_of_the_packages_has_its_suite(suite):
  covered = {
      each.transform
      for _, each in _suites().values()
      if issubclass(each, suite)
  }
  transforms = set()
  for path in _PACKAGES.glob('*/src/*/__init__.py'):
    package = importlib.import_module(path.parent.name)
    transforms |= {
        value for value in (getattr(package, name) for name in package.__all__)
        if isinstance(value, type) and issubclass(value, beam.PTransform)
        and value.__name__.startswith(_ROLES[suite])
    }
  # The base has what transforms are made of, and no service.
  transforms = {
      each for each in transforms
      if not each.__module__.startswith('beam_connector_base')
  }
  assert transforms
  assert transforms <= covered


class _Whole(SinkConformance):
  pass


def test_an_untouched_suite_has_no_problem():
  assert problems_of(_Whole) == []


def test_a_deleted_case_is_noticed():
  class Suite(_Whole):
    test_no_elements_make_no_request = None

  (problem,) = problems_of(Suite)
  assert 'test_no_elements_make_no_request' in problem
  with pytest.raises(AssertionError):
    Suite().test_every_standard_case_is_kept()


def test_a_replaced_case_is_noticed_however_deep():
  class Suite(_Whole):
    def test_no_elements_make_no_request(self):
      pass

  class Below(Suite):
    pass

  assert 'test_no_elements_make_no_request' in problems_of(Below)[0]


def test_a_replaced_case_with_a_reason_is_taken():
  class Suite(_Whole):
    @overrides_case('the service counts requests that it did not get')
    def test_no_elements_make_no_request(self):
      pass

  assert problems_of(Suite) == []


@pytest.mark.parametrize(
    'marks', [pytest.mark.skip, [pytest.mark.xfail(reason='later')]])
def test_a_suite_that_is_skipped_is_noticed(marks):
  class Suite(_Whole):
    pytestmark = marks

  assert 'skipped' in problems_of(Suite)[0]


def test_a_suite_that_is_not_collected_is_noticed():
  class Suite(_Whole):
    __test__ = False

  assert '__test__' in problems_of(Suite)[0]


@pytest.mark.parametrize('reason', ['', '  ', None, 7])
def test_a_reason_is_text(reason):
  with pytest.raises(ValueError, match='reason'):
    overrides_case(reason)


def test_the_decorator_needs_its_reason():
  with pytest.raises(ValueError, match='reason'):

    @overrides_case
    def test_something():
      pass
