"""The paper, in reading order.

| equation | what | file | function | notebook |
|---|---|---|---|---|
| 1-3 | betas and alpha_bar | schedule | make_alpha_bar | 03 |
| 2 | forward process in one jump | schedule | add_noise | 03 |
| 3 | Markov chain, T steps | sampling | markov_chain | 04 |
| 4 | attention condition h | model | AttentionCondition | 03 |
| 5 | denoiser f | model | Denoiser | 03 |
| 5 | lambda_t | schedule | loss_weights | 03 |
| 5 | L_Diff | losses | diffusion_loss | 03 |
| 6 | item transition graph | graph | transition_graph | 01 |
| 7 | A~ | graph | normalized_adjacency | 02 |
| 7 | two GCN layers | gae | GAE | 02 |
| 8 | similarity S | gae | similarity | 02 |
| 9 | L_GAE, dense | losses | gae_loss | 02 |
| 9 | L_GAE, by tiles | pairwise | reconstruction_loss | 07 |
| 7-9 | pretraining | gae | pretrain_gae | 02 |
| 10 | L_AIME, dense | losses | aime_loss | 03 |
| 10 | L_AIME, by tiles | pairwise | similarity_loss | 07 |
| 11 | L = L_Diff + delta L_AIME | losses | total_loss | 03 |
| 12-13 | kappa and xi of the non-Markov family | sampling | coefficients | 04 |
| 14-15 | tau | sampling | choose_tau | 04 |
| 15 | skip-step sampling | sampling | skip_step | 04 |
| 16 | compensator c | compensator | Compensator | 05 |
| 16 | its loss | compensator | compensator_loss | 05 |
| none | tau even in log-SNR | sampling | choose_tau_by_snr | 04 |
| none | what is ours | beyond | BeyondDAE4Rec | 08 |
| none | which model a configuration asks for | variants | make_model | 08 |
| none | f as a mean over the catalogue | posterior | PosteriorDAE4Rec | 09 |

The loop that minimises Eq. 11 is `dae4rec_core.training.train_diffusion`. Nothing here knows of files, users' ids or
figures.
"""
