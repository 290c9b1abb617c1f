"""A model of real flights kept fresh in front of your eyes: the data, the sender, and the story of `leaven demo`."""
