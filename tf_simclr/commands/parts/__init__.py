"""What several commands do alike with the options that they share: images, networks, runs."""
