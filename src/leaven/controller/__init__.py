"""Where the stages meet time: the refresh as durable steps, the trial reconciler, and the replay of a year."""
