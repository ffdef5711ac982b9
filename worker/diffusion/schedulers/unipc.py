"""UniPC (Zhao et al. 2023): a predictor, and a corrector that needs no further model call."""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from worker.diffusion.schedulers.multistep import MultistepScheduler, signal_and_noise
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, SAVED, TERMS, Plan
from worker.diffusion.schedulers.sigmas import karras_sigmas, timesteps_of


class UniPCMultistepScheduler(MultistepScheduler):
    """Each estimate first corrects the step that led to it, then predicts the next."""

    solver_order: Annotated[int, Field(ge=1, le=3)] = 2
    solver_type: Literal["bh1", "bh2"] = "bh2"
    predict_x0: Literal[True] = True
    #: Steps after which nothing is corrected.
    disable_corrector: list[int] = Field(default_factory=list)
    solver_p: None = None
    sigma_min: None = None
    sigma_max: None = None

    @field_validator("solver_type", mode="before")
    @classmethod
    def of_another_class(cls, value: Any) -> Any:
        """The names that other multistep solvers publish mean the default."""
        return "bh2" if value in ("midpoint", "heun", "logrho") else value

    def fill(self, plan: Plan, sigmas: np.ndarray, first: int) -> None:
        lambdas = [-math.log(sigma) if sigma else math.inf for sigma in sigmas]
        order = 0
        for i in range(len(plan)):
            corrected = unit(SAMPLE)
            if i and first + i - 1 not in self.disable_corrector:
                corrected = self.correct(sigmas[: i + 1], lambdas[: i + 1], order)
            plan.save[i] = corrected
            left = len(plan) - i if self.lower_order_final or not sigmas[-1] else len(plan)
            order = min(self.solver_order, left, i + 1)
            plan.update[i] = self.predict(sigmas[: i + 2], lambdas[: i + 2], order, corrected)

    def predict(
        self, sigmas: np.ndarray, lambdas: list[float], order: int, corrected: np.ndarray
    ) -> np.ndarray:
        """Coefficients of the next sample, between the last two levels."""
        now, after = sigmas[-2:]
        if after >= now:
            return corrected
        step = lambdas[-1] - lambdas[-2]
        # Differences to the newest estimate, over their distance in steps.
        known = [(past - lambdas[-2]) / step for past in lambdas[-3 : -2 - order : -1]]
        if order == 2:
            shares = np.array([0.5])
        else:
            shares = self.weights(step, [*known, 1.0], order, order - 1)
        alpha, noise = signal_and_noise(after)
        base = after / now - 1
        terms = noise / signal_and_noise(now)[1] * corrected - alpha * base * unit(ESTIMATE)
        for j, (share, ratio) in enumerate(zip(shares, known, strict=True)):
            difference = unit(ESTIMATE + 1 + j) - unit(ESTIMATE)
            terms -= alpha * self.bound(step) * share / ratio * difference
        return terms

    def correct(self, sigmas: np.ndarray, lambdas: list[float], order: int) -> np.ndarray:
        """Coefficients of the present sample, led to once more with what is now estimated there."""
        before, now = sigmas[-2:]
        step = lambdas[-1] - lambdas[-2]
        known = [(past - lambdas[-2]) / step for past in lambdas[-3 : -2 - order : -1]]
        shares = np.array([0.5]) if order == 1 else self.weights(step, [*known, 1.0], order, order)
        alpha, noise = signal_and_noise(now)
        newest, base = unit(ESTIMATE + 1), now / before - 1
        terms = noise / signal_and_noise(before)[1] * unit(SAVED) - alpha * base * newest
        differences = [unit(ESTIMATE + 2 + j) - newest for j in range(len(known))]
        differences = [d / ratio for d, ratio in zip(differences, known, strict=True)]
        for share, difference in zip(shares, [*differences, unit(ESTIMATE) - newest], strict=True):
            terms -= alpha * self.bound(step) * share * difference
        return terms

    def bound(self, step: float) -> float:
        """The function B(h) of the paper, of which there are two."""
        return -step if self.solver_type == "bh1" else math.expm1(-step)

    def weights(self, step: float, ratios: list[float], order: int, count: int) -> np.ndarray:
        """Of `order` conditions (formula 5 of the paper), the solution of the first `count`."""
        if not count:
            return np.zeros(0)
        right, phi, factorial = [], math.expm1(-step) / -step - 1, 1
        for k in range(1, order + 1):
            right.append(phi * factorial / self.bound(step))
            factorial *= k + 1
            phi = phi / -step - 1 / factorial
        powers = np.vander(ratios[:count] if count < order else ratios, count, increasing=True).T
        return np.linalg.solve(powers[:count, :count], np.array(right[:count]))

    def karras(self, trained: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
        sigmas = karras_sigmas(float(trained[-1]), float(trained[0]), steps)
        return sigmas, timesteps_of(sigmas, trained).round(), float(sigmas[-1])


def unit(term: int) -> np.ndarray:
    """The coefficients of one term alone."""
    terms = np.zeros(TERMS)
    terms[term] = 1.0
    return terms
