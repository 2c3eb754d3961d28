//! Placeholder

use crate::Options;
use crate::report::Report;

pub(crate) fn run(_report: &mut Report, _options: &Options) {}
