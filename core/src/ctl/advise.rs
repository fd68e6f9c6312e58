//! `multusctl advise NAME`: which deadline suits a child.

use multus_contract::api::advice::Advice;
use multus_contract::api::command::Request;

use super::Context;
use super::output::{Failure, print};
use crate::advise::ENOUGH;
use multus_contract::api::human::{alarms_words, time_us};

pub(crate) fn advise(context: &Context, name: &str, json: bool) -> Result<(), Failure> {
    let advices: Vec<Advice> = context.client()?.request_as(&Request::Advise { name: name.to_owned() })?;
    if json {
        let text = serde_json::to_string_pretty(&advices).map_err(|error| Failure::Message(error.to_string()))?;
        return print(|out| writeln!(out, "{text}"));
    }
    print(|out| advices.iter().try_for_each(|advice| writeln!(out, "{}", words(advice))))
}

fn words(advice: &Advice) -> String {
    let lane = if advice.lane.is_empty() { String::new() } else { format!(", lane {}", advice.lane) };
    let mut text = format!(
        "{}{lane}: {} intervals; 50 % {}, 99 % {}, 99.9 % {}, longest {}\n",
        advice.child,
        advice.intervals,
        time_us(advice.p50_us),
        time_us(advice.p99_us),
        time_us(advice.p999_us),
        time_us(advice.max_us)
    );
    if let Some(deadline) = advice.deadline_us {
        let alarms = advice.alarms_per_year.map_or_else(String::new, |a| format!(": {}", alarms_words(a)));
        text += &format!("  deadline in force {}{alarms}\n", time_us(deadline));
    }
    match (advice.advised_us, advice.advised_alarms_per_year) {
        (Some(advised), Some(expected)) => {
            text += &format!("  advised {}: {}", time_us(advised), alarms_words(expected))
        }
        _ => text += &format!("  no advice before {ENOUGH} intervals were seen"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_in_words() {
        let advice = Advice {
            child: "pump".into(),
            intervals: 5000,
            p50_us: 10_000.0,
            p99_us: 11_000.0,
            p999_us: 12_000.0,
            max_us: 14_000.0,
            deadline_us: Some(15_000.0),
            alarms_per_year: Some(250.2),
            advised_us: Some(48_000.0),
            advised_alarms_per_year: Some(0.008),
            ..Advice::default()
        };
        let text = words(&advice);
        assert!(text.contains("deadline in force 15 ms: 250 false alarms a year expected"), "{text}");
        assert!(text.contains("advised 48 ms: one false alarm in 125 years expected"), "{text}");
        let none = Advice { intervals: 7, advised_us: None, ..advice };
        assert!(words(&none).contains("no advice before 1000 intervals"));
    }
}
