"""Plausible wrong answers to the checkers of 05."""

import torch
from torch import nn


def guess_without_the_chances(answers, chances):
    return answers.mean(0)


def guess_the_likeliest(answers, chances):
    return answers[chances.argmax()]


def guess_the_median(answers, chances):
    return answers.median(0).values


def guess_one_number(answers, chances):
    return (chances.unsqueeze(1) * answers).sum()


def learned(e_tau1, h, e_0, inputs=(1, 1), steps=600, loss=lambda error: error.square().sum(1).mean(), hidden=True):
    """The solution's network and loop, with one thing wrong."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [nn.Linear(6, 64), nn.GELU(), nn.Linear(64, 2)] if hidden else [nn.Linear(6, 2)]
            self.layers = nn.Sequential(*layers)

        def forward(self, e_tau1, h):
            return self.layers(torch.cat([inputs[0] * e_tau1, inputs[1] * h], dim=1))

    c = Network()
    optimizer = torch.optim.Adam(c.parameters(), lr=1e-2)
    for _ in range(steps):
        rows = torch.randint(len(e_0), (256,))
        optimizer.zero_grad()
        loss(c(e_tau1[rows], h[rows]) - e_0[rows]).backward()
        optimizer.step()
    return c


def compensator_that_hands_its_input_on(e_tau1, h, e_0):
    return lambda e_tau1, h: e_tau1


def compensator_without_training(*given):
    return learned(*given, steps=0)


def compensator_that_never_sees_h(*given):
    return learned(*given, inputs=(1, 0))


def compensator_that_never_sees_e_tau1(*given):
    return learned(*given, inputs=(0, 1))


def compensator_with_an_absolute_loss(*given):
    return learned(*given, loss=lambda error: error.abs().sum(1).mean())


def compensator_without_a_hidden_layer(*given):
    return learned(*given, hidden=False)


def compensator_of_the_nearest_example(e_tau1, h, e_0):
    known = torch.cat([e_tau1, h], dim=1)
    return lambda e_tau1, h: e_0[torch.cdist(torch.cat([e_tau1, h], dim=1), known).argmin(1)]


def compensator_trained_towards_e_tau1(e_tau1, h, e_0):
    return learned(e_tau1, h, e_tau1)


def share_between_users(answers):
    return answers.mean(0).var(0, correction=0).sum() / answers.flatten(0, 1).var(0, correction=0).sum()


def share_of_deviations(answers):
    within = answers.var(0, correction=0).sum(-1).mean()
    return (within / answers.flatten(0, 1).var(0, correction=0).sum()).sqrt()


def share_over_users(answers):
    return answers.var(1, correction=0).sum(-1).mean() / answers.flatten(0, 1).var(0, correction=0).sum()


def share_of_what_is_between(answers):
    return answers.var(0, correction=0).sum(-1).mean() / answers.mean(0).var(0, correction=0).sum()


def share_of_lengths(answers):
    return answers.var(0, correction=0).sum(-1).mean() / answers.square().sum(-1).mean()


WRONG = {
    "check_best_guess": (guess_without_the_chances, guess_the_likeliest, guess_the_median, guess_one_number),
    "check_learn_compensator": (
        compensator_that_hands_its_input_on,
        compensator_without_training,
        compensator_that_never_sees_h,
        compensator_that_never_sees_e_tau1,
        compensator_with_an_absolute_loss,
        compensator_without_a_hidden_layer,
        compensator_of_the_nearest_example,
        compensator_trained_towards_e_tau1,
    ),
    "check_noise_share": (
        share_between_users,
        share_of_deviations,
        share_over_users,
        share_of_what_is_between,
        share_of_lengths,
    ),
}
