//! Runs each check on this repository.

use std::sync::OnceLock;

use strowger_repo_lint::{
    Repo, arrows, dependencies, docs, examples, formats, layout, requirements, source, tests_named,
    unsafe_code,
};

fn repo() -> &'static Repo {
    static REPO: OnceLock<Repo> = OnceLock::new();
    REPO.get_or_init(Repo::here)
}

macro_rules! checks {
    ($($module:ident::$check:ident),* $(,)?) => {$(
        #[test]
        fn $check() {
            $module::$check(repo()).assert_none();
        }
    )*};
}

checks! {
    arrows::crates_import_along_the_arrows,
    arrows::inside_the_engine_the_worker_knows_no_control,
    arrows::one_loop_runs_around_a_worker,
    arrows::routing_does_no_io,
    dependencies::every_direct_dependency_has_its_reason,
    dependencies::licences_are_those_that_deny_toml_allows,
    docs::decisions_are_numbered_and_say_what_was_measured,
    docs::every_module_has_its_word_in_the_glossary,
    docs::files_that_pages_name_exist,
    docs::links_between_pages_lead_somewhere,
    docs::operators_pages_name_every_key_drop_reason_and_command,
    docs::the_summary_lists_every_page,
    examples::pages_show_the_code_that_is_tested,
    formats::cited_sections_exist,
    layout::manifests_describe_their_crates,
    layout::the_repository_is_complete,
    requirements::annotations_name_requirements_above_tests,
    requirements::cited_requirements_exist,
    requirements::examples_of_requirements_are_read_by_tests,
    requirements::numbers_of_requirements_are_unique_and_in_their_section,
    requirements::numbers_without_requirements_are_listed,
    requirements::requirements_have_tests,
    requirements::the_tests_of_requirements_are_listed,
    source::no_file_names_a_machine,
    source::rust_files_keep_the_style,
    tests_named::every_test_that_the_threats_name_exists,
    tests_named::invariants_have_tests_named_after_them,
    unsafe_code::every_file_with_unsafe_is_listed,
    unsafe_code::unsafe_is_forbidden_except_in_two_crates,
}
