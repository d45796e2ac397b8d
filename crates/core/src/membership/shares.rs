//! Divides a limit into equal shares. No share exceeds what its process can use; the rest goes to the others. What nobody
//! can use is divided equally, too. Pure.

/// Divides `limit` among processes whose tokens allow `usable` each. The result, in their order, sums up to the limit:
/// a process that for a moment sends faster than its token allows takes nothing from the others.
pub(super) fn divide(limit: u32, usable: &[u32]) -> Vec<u32> {
    let mut parts = usable_shares(limit, usable);
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX).max(1);
    let left = limit - parts.iter().sum::<u32>();
    let (each, more) = (left / count, left % count);
    for (part, index) in parts.iter_mut().zip(0..) {
        *part += each + u32::from(index < more);
    }
    parts
}

/// Divides as much of `limit` as the processes can use.
fn usable_shares(limit: u32, usable: &[u32]) -> Vec<u32> {
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
            assert_eq!(usable_shares(limit, &usable), expected, "{limit} among {usable:?}");
        }
    }

    #[test]
    fn what_no_token_lets_through_is_divided_too() {
        assert_eq!(divide(3000, &[300, 300, 300]), [1000; 3]);
        assert_eq!(divide(100, &[300, 10, 300]), [45, 10, 45]);
        assert_eq!(divide(11, &[1, 1, 1]), [4, 4, 3]);
    }

    proptest! {
        #[test]
        fn they_never_sum_above_the_limit_use_it_up_and_starve_nobody(
            limit in 0_u32..5000,
            usable in prop::collection::vec(1_u32..600, 1..40),
        ) {
            let shares = usable_shares(limit, &usable);
            let total: u32 = shares.iter().sum();
            prop_assert_eq!(total, limit.min(usable.iter().sum()));
            let fair = limit / u32::try_from(usable.len()).unwrap();
            for (share, usable) in shares.iter().zip(&usable) {
                prop_assert!(share <= usable && *share >= fair.min(*usable), "{} of {}", share, usable);
            }
            let parts = divide(limit, &usable);
            prop_assert_eq!(parts.iter().sum::<u32>(), limit);
            prop_assert!(parts.iter().zip(&shares).all(|(part, share)| part >= share), "{:?}, {:?}", parts, shares);
        }
    }
}
