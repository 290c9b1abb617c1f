"""A recommender by alternating least squares: biases and factors of users and items, and newcomers folded in."""

from leaven.learners.als.learner import ALS, load_model

__all__ = ["ALS", "load_model"]
