//! Every suite against `skiff-agent serve`; `tests/compat/run --reference` compares with dockerd.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

#[test]
fn docker_py_passes_but_for_the_exceptions() {
    skiff_compat::docker_py::check(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn bollards_tests_pass_but_for_the_exceptions() {
    skiff_compat::bollard::check(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn testcontainers_and_dev_containers_do_what_they_do_with_dockerd() {
    skiff_compat::clients::check(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn each_flag_of_docker_run_does_what_dockerd_does() {
    skiff_compat::flags::check(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn compose_says_and_does_what_it_does_with_dockerd() {
    skiff_compat::compose::check(false).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn random_calls_get_an_answer_and_leave_nothing() {
    skiff_compat::fuzz::check().unwrap_or_else(|error| panic!("{error:#}"));
}
