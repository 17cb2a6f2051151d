"""Learning from rewards: answers are drawn, their masks compared with the truth, and the better ones made likelier."""
