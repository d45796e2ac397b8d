//! How a limit is shared: everybody the same, but nobody more than it can use; what one leaves goes to the others. Pure.

/// The shares of a `limit` among those that can use so much each, in their order. They never sum above it, and use it up
/// where they can.
pub fn shares(limit: u32, usable: &[u32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..usable.len()).collect();
    order.sort_by_key(|index| (usable[*index], *index));
    let (mut left, mut shares) = (limit, vec![0; usable.len()]);
    for (served, index) in order.iter().enumerate() {
        let waiting = u32::try_from(order.len() - served).unwrap_or(u32::MAX);
        let share = usable[*index].min(left / waiting);
        shares[*index] = share;
        left -= share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_shared_evenly_and_what_one_cannot_use_goes_to_the_others() {
        for (limit, usable, expected) in [
            (3000, vec![300], vec![300]),
            (3000, vec![300; 10], vec![300; 10]),
            (3000, vec![300; 20], vec![150; 20]),
            (100, vec![300, 300, 300], vec![33, 33, 34]),
            (100, vec![300, 10, 300], vec![45, 10, 45]),
            (2, vec![300, 300, 300], vec![0, 1, 1]),
            (100, vec![], vec![]),
        ] {
            assert_eq!(shares(limit, &usable), expected, "{limit} among {usable:?}");
        }
    }

    proptest! {
        #[test]
        fn they_never_sum_above_the_limit_use_it_up_and_starve_nobody(
            limit in 0_u32..5000,
            usable in prop::collection::vec(1_u32..600, 1..40),
        ) {
            let shares = shares(limit, &usable);
            let total: u32 = shares.iter().sum();
            prop_assert_eq!(total, limit.min(usable.iter().sum()));
            let fair = limit / u32::try_from(usable.len()).unwrap();
            for (share, usable) in shares.iter().zip(&usable) {
                prop_assert!(share <= usable && *share >= fair.min(*usable), "{} of {}", share, usable);
            }
        }
    }
}
