//! Special functions that the laws need, from portable elementary ones.

/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;

/// Terms of a series or fraction at most; far more than the parameters that laws accept need.
const TERMS_MAX: u32 = 10_000;

/// When a term no longer matters.
const ENOUGH: f64 = 1e-16;

/// The gamma function of what is above 0.
pub fn gamma(a: f64) -> f64 {
    libm::tgamma(a)
}

/// The regularised lower incomplete gamma function: the share of a gamma law with shape `a` below `x`.
///
/// Series below `a + 1`, continued fraction (Lentz) above: Abramowitz and Stegun 6.5.29 and 6.5.31.
pub fn gamma_p(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x.is_infinite() {
        return 1.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 {
        (front * lower_series(a, x)).min(1.0)
    } else {
        (1.0 - front * upper_fraction(a, x)).clamp(0.0, 1.0)
    }
}

fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for n in 1..TERMS_MAX {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * ENOUGH {
            break;
        }
    }
    sum
}

/// By Lentz's method: numerators and denominators as running ratios, kept off 0.
fn upper_fraction(a: f64, x: f64) -> f64 {
    let off_zero = |ratio: f64| if ratio.abs() < 1e-300 { 1e-300 } else { ratio };
    let mut constant = x + 1.0 - a;
    let mut above = 1e300;
    let mut below = 1.0 / off_zero(constant);
    let mut fraction = below;
    for n in 1..TERMS_MAX {
        let n = f64::from(n);
        let factor = n * (a - n);
        constant += 2.0;
        below = 1.0 / off_zero(factor * below + constant);
        above = off_zero(constant + factor / above);
        let change = below * above;
        fraction *= change;
        if (change - 1.0).abs() < ENOUGH {
            break;
        }
    }
    fraction
}

/// The distribution function of the standard normal law.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The entire exponential integral: the integral of `(1 - exp(-s)) / s` from 0 to `x`.
pub fn ein(x: f64) -> f64 {
    if x > 40.0 {
        // Beyond it the rest, E1(x), is below 1e-19.
        return EULER + libm::log(x);
    }
    // exp(-x) times a series of positive terms, so that nothing cancels:
    // Ein(x) = exp(-x) * sum over n of H(n) x^n / n!, with harmonic numbers H(n).
    let (mut power, mut harmonic, mut sum) = (1.0, 0.0, 0.0);
    for n in 1..TERMS_MAX {
        let n = f64::from(n);
        power *= x / n;
        harmonic += 1.0 / n;
        let term = power * harmonic;
        sum += term;
        if n > x && term < sum * ENOUGH {
            break;
        }
    }
    libm::exp(-x) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_functions_have_their_tabulated_values() {
        // P(1, x) = 1 - exp(-x); P(1/2, x) = erf(sqrt(x)); Ein(1) and Phi from tables.
        let rows = [
            (gamma_p(1.0, 0.3), 1.0 - libm::exp(-0.3)),
            (gamma_p(1.0, 7.0), 1.0 - libm::exp(-7.0)),
            (gamma_p(0.5, 0.09), libm::erf(0.3)),
            (gamma_p(0.5, 4.0), libm::erf(2.0)),
            (gamma_p(3.0, 2.0), 1.0 - 5.0 * libm::exp(-2.0)),
            (gamma_p(10_000.0, 10_000.0), 0.501_329_808),
            (gamma(5.0), 24.0),
            (normal_cdf(1.959_963_984_540_054), 0.975),
            (ein(1.0), 0.796_599_599_297_053),
            (ein(40.0), EULER + libm::log(40.0)),
        ];
        for (row, (told, right)) in rows.iter().enumerate() {
            assert!(
                (told - right).abs() < 1e-9,
                "row {row}: {told}, not {right}"
            );
        }
        assert!(gamma_p(2.0, 0.0) <= 0.0 && gamma_p(2.0, f64::INFINITY) >= 1.0);
    }
}
