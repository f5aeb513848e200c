//! Where many rotations start on one day: for people who look at `plan`.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::terminal::{CAUTION, DIM, counted, printable, table, table_text};
use super::views::{HerdView, PlanView};

/// Busy days that are shown of one account, the busiest ones.
const DAYS_MAX: usize = 10;
const BAR_MAX: u64 = 40;

/// The starts of one account.
struct Account<'a> {
    name: &'a str,
    total: u64,
    mean: f64,
    days: Vec<&'a HerdView>,
}

impl Account<'_> {
    /// Starts in any time stay within twice the mean (I15). One start alone is no herd.
    fn is_herd(&self, day: &HerdView) -> bool {
        day.starts > 1 && to_f64(day.starts) > 2.0 * self.mean
    }

    /// The first of the busiest days.
    fn peak(&self) -> Option<&HerdView> {
        self.days.iter().copied().min_by_key(|day| (std::cmp::Reverse(day.starts), day.day))
    }

    /// Days with more than one start: the busiest, in their order.
    fn busy(&self) -> Vec<&HerdView> {
        let mut busy: Vec<&HerdView> = self.days.iter().copied().filter(|day| day.starts > 1).collect();
        busy.sort_by_key(|day| (std::cmp::Reverse(day.starts), day.day));
        busy.truncate(DAYS_MAX);
        busy.sort_by_key(|day| day.day);
        busy
    }
}

/// Nothing, if nothing starts.
pub(super) fn text(view: &PlanView, days: u32) -> Option<String> {
    let accounts = accounts(view, days);
    let mut parts = Vec::new();
    if !accounts.is_empty() {
        parts.extend([summary(&accounts), busy_days(&accounts)]);
    }
    if !view.uncounted.is_empty() {
        let names: Vec<String> = view.uncounted.iter().take(DAYS_MAX).map(|name| printable(name)).collect();
        let more = if view.uncounted.len() > DAYS_MAX { ", …" } else { "" };
        let count = counted(view.uncounted.len(), "credential starts", "credentials start");
        parts.push(format!("{count} too often to be counted by days: {}{more}", names.join(", ")));
    }
    Some(parts.join("\n\n")).filter(|text| !text.is_empty())
}

fn summary(accounts: &[Account<'_>]) -> String {
    let mut rows = table(&["ACCOUNT", "STARTS", "A DAY", "PEAK"]);
    for account in accounts {
        let peak = account.peak().map(|day| format!("{} on {}", day.starts, date(day.day))).unwrap_or_default();
        rows.add_row([printable(account.name), account.total.to_string(), format!("{:.2}", account.mean), peak]);
    }
    table_text(&rows)
}

fn busy_days(accounts: &[Account<'_>]) -> String {
    let busiest = accounts.iter().flat_map(|account| &account.days).map(|day| day.starts).max().unwrap_or(0);
    let mut rows = table(&["BUSY DAYS", "DAY", "STARTS", ""]);
    let mut any = false;
    for account in accounts {
        for day in account.busy() {
            any = true;
            let length = usize::try_from((day.starts * BAR_MAX.min(busiest)).div_ceil(busiest.max(1))).unwrap_or(0);
            let mark = if account.is_herd(day) { format!(" {CAUTION}more than twice the mean{CAUTION:#}") } else { String::new() };
            rows.add_row([printable(account.name), date(day.day), day.starts.to_string(), format!("{}{mark}", "#".repeat(length))]);
        }
    }
    if any { table_text(&rows) } else { format!("{DIM}no account has more than one start on one day{DIM:#}") }
}

fn accounts(view: &PlanView, days: u32) -> Vec<Account<'_>> {
    let mut found: BTreeMap<&str, Account<'_>> = BTreeMap::new();
    for day in &view.herds {
        let new = || Account { name: &day.account, total: 0, mean: 0.0, days: Vec::new() };
        let account = found.entry(day.account.as_str()).or_insert_with(new);
        account.total += day.starts;
        account.mean = to_f64(account.total) / f64::from(days.max(1));
        account.days.push(day);
    }
    found.into_values().collect()
}

fn date(day: Option<Date>) -> String {
    day.map_or_else(|| "-".to_owned(), |day| day.to_string())
}

/// Exact for all counts that there are.
fn to_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
